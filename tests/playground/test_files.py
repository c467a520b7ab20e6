"""The page's files, as they lie there."""

from api.routes.playground import FOLDER


def test_libraries_have_their_licences_and_files_are_short():
    for library in (FOLDER / "vendor").glob("*.js"):
        assert "Copyright" in library.with_suffix(".LICENSE").read_text()
    for file in [*FOLDER.glob("*.*"), *FOLDER.glob("style/*")]:
        lines = file.read_text().splitlines()
        assert len(lines) < 300, file
        assert not [
            line for line in lines if "//" in line and "http" in line and "w3.org" not in line
        ]
