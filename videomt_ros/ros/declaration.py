"""The table of parameters as the parameters of a ROS node: declare, read and change them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import Field, fields, replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from videomt_ros.ros.parameter_entry import constraint
from videomt_ros.ros.parameters import NodeParameters, Parameters


def declare_parameters(node: Node) -> Parameters:
    """Declare every parameter of the table on a node, and read the values that the user set.

    Raises:
        ValueError: a value is of the wrong type or out of range.
    """
    values = {}
    for entry in fields(NodeParameters):
        default = _to_ros(entry.default)
        # rclpy reads an empty list as an array of bytes, and `[]` in a YAML file as no value, so
        # the types of arrays are checked here.
        is_array = isinstance(default, list)
        try:
            declared = node.declare_parameter(
                entry.name, default, _descriptor(entry, dynamic_typing=is_array)
            )
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            hint = ' A whole number needs a point too: 1.0.' if type(default) is float else ''
            raise ValueError(f'{error}.{hint}') from error
        value = declared.value
        if is_array and not value:
            value = []
            node.set_parameters([Parameter(entry.name, Parameter.Type.STRING_ARRAY, value)])
        values[entry.name] = _from_ros(entry, value)
    common = NodeParameters(**values)
    return Parameters(common, _declare_camera_parameters(node, common.cameras))


def follow_changes(node: Node, current: Parameters, changes: Sequence[Parameter]) -> Parameters:
    """Declare and undeclare parameters of cameras after changes that a user has made.

    rclpy undeclares a parameter that is unset, but it must be there to be set again. A camera that
    is new in `cameras` gets parameters of its own, and one that has left loses them.

    Args:
        node: node whose parameters were changed.
        current: values after the changes.
        changes: the changes.

    Returns:
        The values of the cameras that there are now.
    """
    if not any(change.value is None or change.name == 'cameras' for change in changes):
        return current
    cameras = current.common.cameras
    for camera in current.own:
        for entry in _camera_entries() if camera not in cameras else ():
            if node.has_parameter(f'{camera}.{entry.name}'):
                node.undeclare_parameter(f'{camera}.{entry.name}')
    for camera in cameras:
        for entry in _camera_entries():
            if not node.has_parameter(f'{camera}.{entry.name}'):
                # Not with a value from the start, which was unset since.
                _declare_camera_parameter(node, camera, entry, ignore_override=True)
    return replace(current, own={camera: current.own.get(camera, {}) for camera in cameras})


def _declare_camera_parameters(node: Node, cameras: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Declare the parameters that cameras may have of their own.

    Returns:
        The values that the user has set, by camera, then by parameter.
    """
    own: dict[str, dict[str, Any]] = {}
    for camera in cameras:
        own[camera] = {}
        for entry in _camera_entries():
            declared = _declare_camera_parameter(node, camera, entry)
            value = declared.value
            # `[]` in a YAML file is an override without a value. rclpy has no public way to find
            # it.
            if value is None and declared.name in node._parameter_overrides:
                value = []
                node.set_parameters([Parameter(declared.name, Parameter.Type.STRING_ARRAY, value)])
            if value is not None:
                own[camera][entry.name] = _from_ros(entry, value)
    return own


def _declare_camera_parameter(
    node: Node, camera: str, entry: Field[Any], ignore_override: bool = False
) -> Parameter:
    """Declare a parameter of a camera, which has no value, and so any type, until one is set."""
    descriptor = ParameterDescriptor(
        description=entry.metadata['meaning'],
        additional_constraints=f'{constraint(entry)} Not set: as {entry.name}.',
        dynamic_typing=True,
    )
    name = f'{camera}.{entry.name}'
    return node.declare_parameter(name, None, descriptor, ignore_override=ignore_override)


def changed_parameters(
    current: Parameters,
    changes: Sequence[Parameter],
    class_names: Collection[str] | None,
    is_loading: bool = False,
) -> Parameters:
    """Apply changes that a user asks for while the node runs.

    Args:
        current: the present values.
        changes: the changes; those of other names (such as use_sim_time) are ignored.
        class_names: names of the classes of all models; None if none is loaded yet.
        is_loading: whether a model is being loaded.

    Raises:
        ValueError: a value is wrong or cannot change now; says why.
    """
    entries = {entry.name: entry for entry in fields(NodeParameters)}
    common: dict[str, Any] = {}
    own = {camera: dict(values) for camera, values in current.own.items()}
    for change in changes:
        camera, _, name = change.name.rpartition('.')
        entry = entries.get(name)
        if entry is None or (camera and camera not in own):
            continue
        value = _from_ros(entry, change.value)
        before = own[camera].get(name) if camera else getattr(current.common, name)
        if value == before:
            continue
        if not entry.metadata['dynamic'] and is_loading:
            raise ValueError(
                f'{change.name} cannot change while a model is being loaded: wait until it is, or '
                'clean the node up.'
            )
        if not entry.metadata['dynamic'] and class_names is not None:
            raise ValueError(
                f'{change.name} cannot change while a model is loaded: deactivate the node and '
                'clean it up first.'
            )
        if not camera:
            common[name] = value
        elif value is None:
            own[camera].pop(name, None)
        else:
            own[camera][name] = value
    changed = Parameters(replace(current.common, **common), own)
    if class_names is not None:
        changed.check_classes(class_names)
    return changed


def _camera_entries() -> Iterator[Field[Any]]:
    """Iterate over the entries that a camera may have a value of its own for."""
    return (entry for entry in fields(NodeParameters) if entry.metadata['per_camera'])


def _descriptor(entry: Field[Any], *, dynamic_typing: bool) -> ParameterDescriptor:
    limits = entry.metadata
    descriptor = ParameterDescriptor(
        description=limits['meaning'],
        read_only=limits['read_only'],
        dynamic_typing=dynamic_typing,
    )
    descriptor.additional_constraints = constraint(entry)
    if limits['range']:
        low, high = limits['range']
        if isinstance(entry.default, float):
            limit = FloatingPointRange(from_value=low, to_value=high)
            descriptor.floating_point_range = [limit]
        else:
            limit = IntegerRange(from_value=low, to_value=high, step=1)
            descriptor.integer_range = [limit]
    return descriptor


def _to_ros(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _from_ros(entry: Field[Any], value: Any) -> Any:
    """Convert a parameter's value to that of the table, without empty strings in arrays."""
    if not isinstance(entry.default, tuple):
        return value
    if not isinstance(value, Sequence) or isinstance(value, str):
        return value
    return tuple(word for word in value if word != '')
