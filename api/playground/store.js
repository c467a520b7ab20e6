/** What was made, in this browser's IndexedDB: settings and files. */

const [NAME, TAKES, KEPT] = ["audiocraft-playground", "takes", 50];
let opened = null;

const answered = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

async function takes(mode) {
  if (!opened) {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () =>
      request.result.createObjectStore(TAKES, { keyPath: "id", autoIncrement: true });
    opened = answered(request);
  }
  return (await opened).transaction(TAKES, mode).objectStore(TAKES);
}

/** All that is kept, the newest first. */
export const all = async () => (await answered((await takes("readonly")).getAll())).reverse();

/** Keeps a take; what is older than the last fifty is forgotten. */
export async function add(take) {
  await answered((await takes("readwrite")).add(take));
  const old = (await all()).slice(KEPT);
  for (const { id } of old) await forget(id);
}

export const forget = async (id) => answered((await takes("readwrite")).delete(id));
export const forgetAll = async () => answered((await takes("readwrite")).clear());
