"""C text of a world's functions: each has a traceable one and its patched twin, which record what they receive."""

from __future__ import annotations

import re
from collections.abc import Iterator

from spec.abi import SLOT_BYTES
from spec.errors import BadInputError
from spec.prototypes import MODULUS, Prototype, Type
from spec.worlds import Callee, Function, World

__all__ = ["UNKNOWN", "fmodret_functions", "functions_of", "functions_text", "module_text"]

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
SCALARS = {
    1: ("unsigned char", "signed char"),
    2: ("unsigned short", "short"),
    4: ("unsigned int", "int"),
    8: ("unsigned long", "long"),
    16: ("unsigned __int128", "__int128"),
}
ENUM_MODES = {1: "QI", 2: "HI", 4: "SI", 8: "DI"}
UNSIGNED = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}
UNKNOWN = Prototype((Type("unsigned long", "INT", 8),) * 6, Type("long", "INT", 8))
"""Of a function whose prototype is not known."""

PATCHED_ADDS = 1000

HEAD = """\
// SPDX-License-Identifier: MIT OR GPL-2.0
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/module.h>

#include "massattach.h"

/* Without noipa gcc would clone, inline or specialise; no_reorder keeps the world's order of addresses. */
#define TRACEABLE noinline __attribute__((noipa, no_reorder))
#define UNTRACED notrace TRACEABLE
"""

MODULE_TAIL = """\
static int __init notrace enter(void)
{
	return massattach_functions_init();
}

static void __exit notrace leave(void)
{
}

module_init(enter);
module_exit(leave);
MODULE_DESCRIPTION("Traceable functions of a module that can go");
MODULE_LICENSE("Dual MIT/GPL");
"""

NO_SETS = """\
int notrace massattach_functions_init(void)
{
	return 0;
}
"""

SETS = """\
#ifdef MASSATTACH_FMODRET
/* The ids are filled in after the link, from which BTF is made. */
static struct btf_id_set8 ids __used __section(".massattach_fmodret_ids") = {{
	.cnt = {count},
	.pairs = {{ {pairs} }},
}};

static const struct btf_kfunc_id_set fmodret = {{ .owner = THIS_MODULE, .set = &ids }};

int notrace massattach_functions_init(void)
{{
	return register_btf_fmodret_id_set(&fmodret);
}}
#else
{without}#endif
"""


def functions_of(world: World, module: str | None, absent: frozenset[str] = frozenset()) -> tuple[Function, ...]:
    """The functions that a module of ours holds, in the world's order; `absent` are the running kernel's own."""
    return tuple(f for f in world.functions if f.module == module and f.name not in absent)


def fmodret_functions(functions: tuple[Function, ...]) -> tuple[tuple[str, bool], ...]:
    """Those that fmod_ret programs may attach to, and whether sleepable ones may, too.

    The kernel has one set for both, so a function that is `sleepable` but not `fmod_ret` cannot be told to it.
    """
    return tuple((f.symbol, "sleepable" in f.attributes) for f in functions if "fmod_ret" in f.attributes)


def functions_text(world: World, module: str | None, absent: frozenset[str] = frozenset()) -> str:
    """functions.c of massattach.ko (module None), or of a module of the world.

    A function's number is its place in the world. BadInputError for what cannot be said in C, or not in one module.
    """
    functions = functions_of(world, module, absent)
    numbers = {function.name: number for number, function in enumerate(world.functions)}
    here = {function.name: function for function in functions}
    _check_symbols(functions)
    parts = [HEAD, *_declare_types(functions)]
    parts += [f"{_declare(f, suffix)};" for f in functions for suffix in ("", "__patched")]
    for function in functions:
        _check(function, here)
        parts.append(_define(function, numbers[function.name], here, patched=False))
        parts.append(_define(function, numbers[function.name], here, patched=True))
    parts.append(_fill_sets(functions))
    return "\n".join(parts)


def module_text(world: World, module: str, absent: frozenset[str] = frozenset()) -> str:
    """The whole source of a module of the world."""
    return functions_text(world, module, absent) + "\n" + MODULE_TAIL


def _check_symbols(functions: tuple[Function, ...]) -> None:
    """A module has one function of a name."""
    seen: set[str] = set()
    for function in functions:
        if function.symbol in seen:
            raise BadInputError(
                f"the function {function.name} cannot be compiled into the module of another one's name"
            )
        seen.add(function.symbol)


def _check(function: Function, here: dict[str, Function]) -> None:
    name = function.name
    if not IDENTIFIER.match(function.symbol):
        raise BadInputError(f"the function {name} cannot be compiled into a module: its name is no C identifier")
    for callee in function.callees:
        if callee.function not in here:
            raise BadInputError(f"the function {name} calls {callee.function}, which is not in its module")


def _assume_prototype(function: Function) -> Prototype:
    return function.prototype or UNKNOWN


def _declare_types(functions: tuple[Function, ...]) -> Iterator[str]:
    used = {kind for f in functions for kind in (*_assume_prototype(f).arguments, _assume_prototype(f).returns)}
    for word, kind, size in sorted({(_spell_type(t), t.kind, t.size) for t in used if t.by_value or t.kind == "ENUM"}):
        if kind == "ENUM":
            name = word.removeprefix("enum ").upper()
            yield f"{word} {{ {name} = 1 }} __attribute__((mode({ENUM_MODES[size]})));"
        elif size % 8:
            yield f"{word} {{ u8 bytes[{size}]; }};"
        else:
            yield f"{word} {{ u64 words[{size // 8}]; }};"


def _spell_type(kind: Type) -> str:
    """A C type whose values are passed as those of this BTF type are."""
    if kind.by_value and 0 < kind.size <= 16:
        return f"{kind.kind.lower()} massattach_{kind.kind.lower()}{kind.size}"
    if kind.kind == "VOID":
        return "void"
    if kind.kind == "PTR":
        return "void *"
    if kind.kind == "ENUM" and kind.size in ENUM_MODES:
        return f"enum massattach_enum{kind.size}"
    if kind.kind == "INT" and kind.size in SCALARS:
        return "bool" if kind.name in {"bool", "_Bool"} else SCALARS[kind.size][kind.signed]
    raise BadInputError(f"no module can hold a function with a {kind.name}, a {kind.kind} of {kind.size} bytes")


def _declare(function: Function, suffix: str) -> str:
    prototype = _assume_prototype(function)
    arguments = [f"{_spell_type(kind)} a{place}" for place, kind in enumerate(prototype.arguments)]
    dots = ["..."] if prototype.variadic and arguments else []
    return f"{_spell_type(prototype.returns)} {function.symbol}{suffix}({', '.join(arguments + dots) or 'void'})"


def _define(function: Function, number: int, here: dict[str, Function], *, patched: bool) -> str:
    prototype = _assume_prototype(function)
    words = ", ".join(_take_words(prototype)) or "0"
    terms = _call_callees(function, here) if function.callees else _add_members(prototype)
    lines = [
        f"u64 w[{len(prototype.slots) or 1}] = {{ {words} }}, total = {PATCHED_ADDS * patched};",
        "",
        *_copy_structs(prototype),
        f"massattach_body({number}, {str(patched).lower()}, {len(prototype.slots)}, w);",
        *(f"total += {term};" for term in terms),
        *_return_total(prototype.returns),
    ]
    head = _declare(function, "__patched" if patched else "")
    body = "\n".join(f"\t{line}" if line else "" for line in lines)
    traced = function.has_site and not patched
    return f"\n{'TRACEABLE' if traced else 'UNTRACED'} {head}\n{{\n{body}\n}}"


def _take_words(prototype: Prototype) -> Iterator[str]:
    """An initial value for each slot's word; _copy_structs() fills those of by-value structs."""
    for slot in prototype.slots:
        kind, name = prototype.arguments[slot.argument], f"a{slot.argument}"
        if kind.by_value:
            yield "0"
        elif slot.offset:
            yield f"(u64)({name} >> {8 * slot.offset})"
        else:
            yield f"({UNSIGNED[slot.size]}){name}"


def _copy_structs(prototype: Prototype) -> Iterator[str]:
    for place, slot in enumerate(prototype.slots):
        kind = prototype.arguments[slot.argument]
        if kind.by_value and slot.offset == 0:
            yield f"__builtin_memcpy(&w[{place}], &a{slot.argument}, {kind.size});"


def _add_members(prototype: Prototype) -> Iterator[str]:
    """The terms that the body adds up (TRACE-2)."""
    for place, slot in enumerate(prototype.slots):
        kind = prototype.arguments[slot.argument]
        if kind.by_value or kind.kind == "ENUM":
            yield f"w[{place}]"
        elif slot.offset == 0:
            yield f"(u64)a{slot.argument}"


def _call_callees(function: Function, here: dict[str, Function]) -> Iterator[str]:
    """The calls that a body makes, in their order, each as a statement expression (TRACE-4)."""
    for callee in function.callees:
        yield _call(callee, here[callee.function])


def _call(callee: Callee, function: Function) -> str:
    prototype, name = _assume_prototype(function), function.symbol
    words = [f"w[{number}]" if source == "slot" else f"{number % MODULUS}ull" for source, number in callee.arguments]
    value = _evaluate(prototype.returns, f"{name}({', '.join(_pass_words(prototype))})")
    ready = f"u64 c[{len(words) or 1}] = {{ {', '.join(words) or '0'} }}; (void)c; massattach_begin({name});"
    return f"({{ {ready} massattach_end(({{ {value}; }})); }})"


def _pass_words(prototype: Prototype) -> Iterator[str]:
    """The arguments of a call, made of the array c, which has a word for each slot."""
    for place, slot in enumerate(prototype.slots):
        c_type = _spell_type(kind := prototype.arguments[slot.argument])
        if slot.offset == 0:
            yield f"*({c_type} *)&c[{place}]" if kind.by_value or kind.size > SLOT_BYTES else f"({c_type})c[{place}]"


def _evaluate(returns: Type, call: str) -> str:
    """What the caller makes of a call: the return word with its sign, 0 for void (ARG-5)."""
    if returns.kind == "VOID":
        return f"{call}; 0ull"
    if returns.by_value:
        copied = min(returns.size, SLOT_BYTES)
        return f"u64 v = 0; {_spell_type(returns)} r = {call}; __builtin_memcpy(&v, &r, {copied}); v"
    return f"(u64){call}"


def _return_total(returns: Type) -> Iterator[str]:
    """The return statement; of a struct only the first word holds anything."""
    if returns.by_value:
        yield f"{_spell_type(returns)} value = {{ }};"
        yield f"__builtin_memcpy(&value, &total, {min(returns.size, SLOT_BYTES)});"
        yield "return value;"
    elif returns.kind != "VOID":
        yield f"return ({_spell_type(returns)})total;"


def _fill_sets(functions: tuple[Function, ...]) -> str:
    marked = fmodret_functions(functions)
    if not marked:
        return "\n" + NO_SETS
    pairs = ", ".join(f"{{ 0, {'KF_SLEEPABLE' if sleepable else '0'} }}" for _, sleepable in marked)
    return "\n" + SETS.format(count=len(marked), pairs=pairs, without=NO_SETS)
