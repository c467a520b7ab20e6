/** Asks this server, with this tab's key. What it refuses is a ServerError. */

const KEY = "api-key";
export const savedKey = () => sessionStorage.getItem(KEY) ?? "";
export const saveKey = (key) => sessionStorage.setItem(KEY, key);

/** An answer that is none, in the server's words. */
export class ServerError extends Error {
  constructor(message, { status = 0, param = null, requestId = "", retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, param, requestId, retryAfter });
  }

  /** Of the one error shape that answers and events have. */
  static of(body, status = 0, retryAfter = 0) {
    const { message, param } = body.error;
    return new ServerError(message, { status, param, requestId: body.request_id, retryAfter });
  }
}

const UNREACHABLE = "The server cannot be reached. See whether it is running, then try again.";
const CUT = "The answer was cut off before its end. Try again; the same seed gives the same clip.";

/** Fetches a path relative to this page. Throws ServerError, or AbortError where `signal` aborts. */
export async function ask(path, { headers = {}, ...options } = {}) {
  const key = savedKey();
  const authorization = key ? { authorization: `Bearer ${key}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...headers, ...authorization } });
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServerError(UNREACHABLE);
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function refusal(answer) {
  const retryAfter = Number(answer.headers.get("retry-after") ?? 0);
  try {
    return ServerError.of(await answer.json(), answer.status, retryAfter);
  } catch {
    const message = `The server, or a proxy before it, answered ${answer.status} ${answer.statusText}. Try again.`;
    return new ServerError(message, { status: answer.status, retryAfter });
  }
}

/** Yields an answer's server-sent events as {name, data}; an `error` event is thrown. */
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let parts = [];
  try {
    for (;;) {
      const { value, done } = await read(reader, answer.headers.get("x-request-id") ?? "");
      if (done) return;
      if (!value.includes("\n")) {
        // the middle of a long line: joined once it ends
        parts.push(value);
        continue;
      }
      const blocks = (parts.join("") + value).split("\n\n");
      parts = [blocks.pop()];
      for (const block of blocks) {
        const event = parsed(block);
        if (event?.name === "error") throw ServerError.of(event.data);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // where it has failed already there is nothing to cancel
  }
}

async function read(reader, requestId) {
  try {
    return await reader.read();
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServerError(CUT, { requestId });
  }
}

function parsed(block) {
  const fields = block
    .split("\n")
    .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]);
  const { event, data } = Object.fromEntries(fields);
  return event ? { name: event, data: JSON.parse(data) } : null; // else a comment
}

/** The bytes of a base64 text. */
export const bytesOf = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
