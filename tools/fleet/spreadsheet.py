"""CSV as spreadsheets write it: rows of {column: text}. A fault is named by its row and column."""

import csv
import io
import re

from ..common.problem import BadInput

FORMULA = "=+-@\t\r'"  # how a cell begins that a spreadsheet would compute: ' before it says text
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
_MAY_BEGIN_WITH_A_HASH = ("ssid", "wifi_key", "psk")  # where it begins no comment
_SAVE = 'save it as "CSV UTF-8"'
_NOTHING = "nothing was imported; mend the file and run this again"


def read_text(path):
    """The text of a file in UTF-8 or UTF-16; octets that are none stand in it as surrogates."""
    try:
        octets = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    if octets.startswith(b"PK\x03\x04"):
        raise BadInput(f"{path}: row 1, column 1: a workbook, and no text", _SAVE)
    # UTF-16 without a mark shows by its zeros, which are nearly half of it.
    low, high = octets[1::2].count(0), octets[0::2].count(0)
    encoding = "utf-16-le" if low > high else "utf-16-be"
    if 4 * (low + high) < len(octets) or not octets:
        encoding = "utf-8"
    for mark, named in _MARKS:
        if octets.startswith(mark):
            octets, encoding = octets[len(mark) :], named
            break
    try:
        return octets.decode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
    except UnicodeDecodeError:
        raise BadInput(f"{path}: row 1, column 1: broken {encoding.upper()}", _SAVE) from None


def read_rows(path, known):
    """Yield (line number in the file, {column: text}) of a table with columns out of `known`.

    The separator is , or ; or a tab, or what a first line like `sep=;` says. Lines that begin
    with # and rows of empty cells are passed over, and an empty cell needs no column.
    """
    text = read_text(path)
    said = re.match(r'"?sep=(.)"?[,;\t]*(\r\n|\n|\r|$)', text, re.I)
    if said:
        text = text[said.end() :]
    above = 1 if said else 0
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=said[1] if said else _separator(text), strict=True
    )
    columns = None
    try:
        for cells in reader:
            where = f"{path}: row {reader.line_num + above}"
            cells = [_stripped(cell) for cell in cells]
            if not any(cells) or _is_comment(cells, columns):
                continue
            if columns is None:
                columns = _columns(where, cells, known)
            else:
                yield reader.line_num + above, _entry(where, cells, columns)
    except csv.Error as error:
        where = f"{path}: row {reader.line_num + above}, column 1"
        raise BadInput(f"{where}: {error}", _NOTHING) from None
    if columns is None:
        raise BadInput(f"{path}: empty; the first row names the columns")


def _separator(text):
    """What separates most cells of the first line that has any."""
    for line in text.splitlines():
        if line.strip(" ,;\t") and not line.lstrip('" ').startswith("#"):
            return max(",;\t", key=line.count)
    return ","


def _stripped(cell):
    return cell.strip().strip(_INVISIBLE).strip()


def _is_comment(cells, columns):
    return cells[0].startswith("#") and not (columns and columns[0] in _MAY_BEGIN_WITH_A_HASH)


def _columns(where, cells, known):
    columns = [re.sub(r"[\s-]+", "_", cell.lower()) for cell in cells]
    for n, (name, cell) in enumerate(zip(columns, cells, strict=True), 1):
        _check(where, n, cell)
        if name and name not in known:
            raise BadInput(f'{where}, column "{cell}": unknown; known are {", ".join(known)}')
        if name and columns.count(name) > 1:
            raise BadInput(f'{where}, column "{name}": named twice')
    return columns


def _entry(where, cells, columns):
    entry = {}
    for n, cell in enumerate(cells, 1):
        if not cell:
            continue
        name = columns[n - 1] if n <= len(columns) else ""
        _check(where, f'"{name}"' if name else n, cell)
        if not name:
            raise BadInput(f"{where}, column {n}: a value in a column without a name", _NOTHING)
        # An apostrophe in front says that it is text.
        entry[name] = cell[1:] if cell[0] == "'" and cell[1:2] in tuple(FORMULA) else cell
    return entry


def _check(where, column, cell):
    if re.search("[\ud800-\udfff]", cell):
        raise BadInput(f"{where}, column {column}: not UTF-8 text", _SAVE)
    if not cell.isprintable():
        raise BadInput(f"{where}, column {column}: a character that nobody sees", _NOTHING)
