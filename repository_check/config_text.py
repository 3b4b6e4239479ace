"""The text of a config.pbtxt: the line of each field, and what a misspelt name meant.

A field is given by its path, such as ``("input", 0, "dims")``.
"""

import difflib
import re
from bisect import bisect
from collections import Counter

from tritonclient.grpc import model_config_pb2 as schema

_TOKEN = re.compile(
    r"""#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[][{}<>:,;]|[^][\s{}<>:,;"'#]+"""
)


def find_lines(text):
    """The line of each field, by its path, such as ``("input", 0, "dims", 0)``.

    protobuf's parser keeps no positions. The text has passed that parser.

    Raises:
        IndexError, RecursionError: this walk does not follow the text.
    """
    ends = [match.end() for match in re.finditer("\n", text)]
    tokens = [
        (match.group(), bisect(ends, match.start()) + 1)
        for match in _TOKEN.finditer(text)
        if not match.group().startswith("#")
    ]
    lines, i = {}, 0

    def walk_message(path):
        nonlocal i
        counts = Counter()
        while i < len(tokens) and tokens[i][0] not in "}>":
            name, line = tokens[i]
            i += 1
            if name in ",;":
                continue
            while i < len(tokens) and tokens[i][0] == ":":
                i += 1
            is_list = tokens[i][0] == "["
            i += is_list
            while True:
                field = (*path, name, counts[name])
                counts[name] += 1
                lines[field] = tokens[i][1] if is_list else line
                if tokens[i][0] in "{<":
                    i += 1
                    walk_message(field)
                is_quoted = tokens[i][0][0] in "\"'"
                i += tokens[i][0] != "]"
                while is_quoted and i < len(tokens) and tokens[i][0][0] in "\"'":
                    i += 1  # strings side by side are one
                if not is_list:
                    break
                while tokens[i][0] == ",":
                    i += 1
                if tokens[i][0] == "]":
                    i += 1
                    break

    walk_message(())
    return lines


def add_missing_indexes(path):
    """A path in which every field has its index, 0 where none is given."""
    indexed = []
    for i, part in enumerate(path):
        indexed.append(part)
        has_no_index = i + 1 == len(path) or isinstance(path[i + 1], str)
        if isinstance(part, str) and has_no_index:
            indexed.append(0)
    return tuple(indexed)


def write_path(path):
    """``("input", 0, "dims")`` as ``input[0].dims``."""
    text = "".join(f"[{x}]" if isinstance(x, int) else f".{x}" for x in path)
    return text.lstrip(".")


def find_nearest_name(message):
    """The field or value that someone may have meant, from protobuf's complaint."""
    names = []
    if wrong := re.search(r'no field named "(\w+)"', message):
        owner = re.search(r'Message type "inference\.([\w.]+)"', message)[1]
        known = schema
        for part in owner.split("."):
            known = getattr(known, part, None)
        names = [field.name for field in known.DESCRIPTOR.fields] if known else []
    elif wrong := re.search(r"no value named (\w+)", message):
        enum = re.search(r'Enum type "inference\.([\w.]+)"', message)[1].split(".")
        owner = schema.DESCRIPTOR.message_types_by_name.get(enum[0])
        values = (
            owner.enum_types_by_name[enum[1]].values
            if owner
            else schema.DESCRIPTOR.enum_types_by_name[enum[0]].values
        )
        names = [value.name for value in values]
    close = difflib.get_close_matches(wrong[1], names, 1) if wrong else []
    return close[0] if close else ""


def explain_parse_error(text, error):
    """What protobuf's parser says of a text, as arguments of ``add_error``."""
    position = re.match(r"(\d+):(\d+) : (.*)", str(error), re.DOTALL)
    message = position[3] if position else str(error)
    nearest = find_nearest_name(message)
    if text.startswith("\ufeff"):
        message = "a byte order mark"
    message = re.sub(r"^'.*?': ", "", message, flags=re.DOTALL)
    message = ascii(message).strip("\"'").replace('\\"', '"').replace("\\'", "'")
    return {
        "found": message.rstrip("."),
        "expected": "the text form of Triton's ModelConfig",
        "fix": f"Did you mean {nearest}?" if nearest else "See the line and column",
        "line": int(position[1]) if position else None,
        "field": f"column {position[2]}" if position else "",
    }
