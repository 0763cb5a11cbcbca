"""The messages of this version against those of recorded ones: an old process and a new one read each other.

Bytes say the number of a field and its kind, not its name: a number that gets another meaning is read wrongly, and
without an error. So numbers are kept, or reserved when they are given up.
"""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, ServiceDescriptor

import mesh.v1
from tests.released_mesh import RELEASES, Release

PRESENT = descriptor_pool.Default()
MODULES = [
    importlib.import_module(f"mesh.v1.{each.name}")
    for each in pkgutil.iter_modules(mesh.v1.__path__)
    if each.name.endswith("_pb2")
]


def breaks(old: descriptor_pool.DescriptorPool, new: descriptor_pool.DescriptorPool, file_name: str) -> list[str]:
    """What programs of the two would read wrongly of each other."""
    file = old.FindFileByName(file_name)
    return [
        *(line for each in file.message_types_by_name.values() for line in _of_message(each, new)),
        *(line for each in file.enum_types_by_name.values() for line in _of_enum(each, new)),
        *(line for each in file.services_by_name.values() for line in _of_service(each, new)),
    ]


def _of_message(old: Descriptor, pool: descriptor_pool.DescriptorPool) -> Iterator[str]:
    try:
        new = pool.FindMessageTypeByName(old.full_name)
    except KeyError:
        yield f"{old.full_name} is gone"
        return
    befores, afters = (_fields(each) for each in (old, new))
    made = descriptor_pb2.DescriptorProto()
    new.CopyToProto(made)
    for number, (name, *kind) in befores.items():
        if number in afters:
            if [name, *kind] != list(afters[number]):
                yield f"{old.full_name}.{name} = {number}: was {kind}, is now {afters[number]}"
        elif not any(each.start <= number < each.end for each in made.reserved_range):
            yield f"{old.full_name}.{name}: its number {number} is free, and not reserved"
    for nested in old.nested_types:
        yield from _of_message(nested, pool)
    for enum in old.enum_types:
        yield from _of_enum(enum, pool)


def _fields(message: Descriptor) -> dict[int, tuple[object, ...]]:
    """Of each number the name, which says what it means, and all that both ends have to agree on."""
    made = descriptor_pb2.DescriptorProto()
    message.CopyToProto(made)
    return {
        each.number: (
            each.name,
            descriptor_pb2.FieldDescriptorProto.Type.Name(each.type),
            each.type_name,
            each.label == each.LABEL_REPEATED,
            # One that is merely optional is in a oneof of its own.
            made.oneof_decl[each.oneof_index].name if each.HasField("oneof_index") and not each.proto3_optional else "",
        )
        for each in made.field
    }


def _of_enum(old: EnumDescriptor, pool: descriptor_pool.DescriptorPool) -> Iterator[str]:
    new = pool.FindEnumTypeByName(old.full_name)
    for value in old.values:
        now = new.values_by_number.get(value.number)
        if now is None or now.name != value.name:
            yield f"{old.full_name}: {value.number} was {value.name}"


def _of_service(old: ServiceDescriptor, pool: descriptor_pool.DescriptorPool) -> Iterator[str]:
    shapes = []
    for service in (old, pool.FindServiceByName(old.full_name)):
        made = descriptor_pb2.ServiceDescriptorProto()
        service.CopyToProto(made)
        shapes.append({each.name: each for each in made.method})
    for name, method in shapes[0].items():
        if shapes[1].get(name) != method:
            yield f"{old.full_name}/{name} is gone, or has other messages"


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_no_number_has_another_meaning_than_in_an_earlier_version(release: Release) -> None:
    names = [file.name for file in release.files.file if file.name.startswith("mesh/v1/")]
    assert {"mesh/v1/control.proto", "mesh/v1/replica.proto"} <= set(names)
    assert [line for name in names for line in breaks(release.pool, PRESENT, name)] == []


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_what_an_earlier_version_writes_comes_back_whole(release: Release) -> None:
    """Each of its messages, with every field set, through this version, which knows more."""
    messages = [each for each in release.messages() if each.full_name.startswith("mesh.v1.")]
    assert len(messages) > 50
    for described in messages:
        message = release.new(described.full_name)
        _fill(message, depth=3)
        modules = {each.DESCRIPTOR.name: each for each in MODULES}
        if described.containing_type is None and described.file.name in modules:
            present = getattr(modules[described.file.name], described.name).FromString(message.SerializeToString())
            assert release.passed_on(present) == present, described.full_name


def _fill(message: object, depth: int) -> None:
    """Set every field to something else than its default."""
    for field in message.DESCRIPTOR.fields:  # type: ignore[attr-defined]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        if field.message_type is not None:
            if depth:
                child = getattr(message, field.name)
                _fill(child.add() if field.is_repeated else child, depth - 1)
                if not field.is_repeated:
                    child.SetInParent()
            continue
        value: object = 1
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            value = b"x" if field.type == FieldDescriptor.TYPE_BYTES else "x"
        elif field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
            value = field.enum_type.values[-1].number
        elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            value = True
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)


FILE = """
name: "t.proto" package: "t" syntax: "proto3"
message_type {
  name: "Call"
  field { name: "id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "kind" number: 2 type: TYPE_ENUM type_name: ".t.Kind" label: LABEL_OPTIONAL }
}
enum_type { name: "Kind" value { name: "ONE" number: 0 } value { name: "TWO" number: 1 } }
service {
  name: "Calls"
  method { name: "Make" input_type: ".t.Call" output_type: ".t.Call" }
}
"""


@pytest.mark.parametrize(
    ("before", "after", "wrong"),
    [
        ("", "", None),
        ('name: "id" number: 1', 'name: "id" number: 7', "t.Call.id: its number 1 is free, and not reserved"),
        ("number: 1 type: TYPE_STRING", "number: 1 type: TYPE_BYTES", "now ('id', 'TYPE_BYTES'"),
        ('name: "id" number: 1', 'name: "owner" number: 1', "is now ('owner'"),
        ("type: TYPE_STRING label: LABEL_OPTIONAL", "type: TYPE_STRING label: LABEL_REPEATED", "t.Call.id = 1:"),
        ('name: "TWO" number: 1', 'name: "THREE" number: 1', "t.Kind: 1 was TWO"),
        ('output_type: ".t.Call"', 'output_type: ".t.Call" server_streaming: true', "t.Calls/Make is gone, or has"),
        ('name: "Call"\n', 'name: "Other"\n', "t.Call is gone"),
        (
            'field { name: "id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }',
            "reserved_range { start: 1 end: 2 }",
            None,
        ),
        ('name: "Call"\n', 'name: "Call" field { name: "new" number: 9 type: TYPE_BOOL label: LABEL_OPTIONAL }', None),
    ],
)  # fmt: skip
def test_the_check_finds_what_breaks(before: str, after: str, wrong: str | None) -> None:
    changed = FILE.replace(before, after, 1) if before else FILE
    if '"Other"' in after:
        changed = changed.replace(".t.Call", ".t.Other")
    old, new = _pool(FILE), _pool(changed)
    found = breaks(old, new, "t.proto")
    assert found == [] if wrong is None else any(wrong in line for line in found), found


def _pool(text: str) -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(text, descriptor_pb2.FileDescriptorProto()))
    return pool
