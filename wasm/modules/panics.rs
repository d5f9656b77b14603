//! Has panics of the browser's module end it at once: no browser shows their messages, which are a part of its bytes.
//! What `wasm-snip` does, by the library that wasm-bindgen works on modules with.

use std::ops::Range;

use walrus::{
    ConstExpr, Data, DataKind, FunctionBuilder, FunctionId, FunctionKind, Module,
    ir::{Instr, Value},
    passes::gc,
};

/// What a function's name has in it, as the compiler gives it, that is called once nothing goes on.
const PANICS: [&str; 8] = [
    "]::panicking::",
    "]::option::expect_failed",
    "]::option::unwrap_failed",
    "]::result::unwrap_failed",
    "slice_index_fail",
    "slice_error_fail",
    "capacity_overflow",
    "handle_alloc_error",
];

/// What formats for such messages alone: no other of the core or the module has a `{:?}`, as wasm/tests/messages.rs sees to.
const DEBUG: &str = "::fmt::Debug>::fmt";

/// How a path ends, and how long it is at the most.
const PATH_END: &[u8] = b".rs";
const PATH_BYTES_MAX: u32 = 256;

const WORD_BYTES: u32 = 4;

/// Replaces each such function of a module that has its functions' names, and removes what they alone need.
pub(crate) fn forget(module: &mut Module) {
    let functions: Vec<_> = module.funcs.iter().map(|function| function.id()).collect();
    for id in functions {
        if is_panic(module, id) {
            trap(module, id);
        }
    }
    forget_places(module);
    gc::run(module);
}

/// Where it panicked is told by a [`std::panic::Location`]: where a path stands and how long it is, the line, the column.
/// No one reads them any more; as zeros they and the paths take no bytes.
fn forget_places(module: &mut Module) {
    let mut places = Vec::new();
    for data in module.data.iter() {
        let Some(start) = start_of(data) else {
            continue;
        };
        let unaligned = start.next_multiple_of(WORD_BYTES) - start;
        let words = data.value.get(unaligned as usize..).unwrap_or_default();
        let (words, _) = words.as_chunks::<{ WORD_BYTES as usize }>();
        for (at, place) in (start + unaligned..)
            .step_by(WORD_BYTES as usize)
            .zip(words.windows(4))
        {
            let [path, path_bytes, _line, _column] =
                [0, 1, 2, 3].map(|n| u32::from_le_bytes(place[n]));
            let path = path..path.saturating_add(path_bytes);
            if path_bytes <= PATH_BYTES_MAX && is_path(module, &path) {
                places.push(at..at + 4 * WORD_BYTES);
                places.push(path);
            }
        }
    }
    let parts: Vec<_> = module.data.iter().map(|data| data.id()).collect();
    for id in parts {
        let data = module.data.get_mut(id);
        let Some(start) = start_of(data) else {
            continue;
        };
        for place in &places {
            let range = range_in(start, place);
            if let Some(bytes) = range.and_then(|range| data.value.get_mut(range)) {
                bytes.fill(0);
            }
        }
    }
}

/// Whether the path of a source file stands there.
fn is_path(module: &Module, path: &Range<u32>) -> bool {
    module.data.iter().any(|data| {
        let range = start_of(data).and_then(|start| range_in(start, path));
        let bytes = range.and_then(|range| data.value.get(range));
        bytes.is_some_and(|bytes| {
            bytes.ends_with(PATH_END) && bytes.iter().all(u8::is_ascii_graphic)
        })
    })
}

/// Where in memory these bytes are put.
fn start_of(data: &Data) -> Option<u32> {
    match data.kind {
        DataKind::Active {
            offset: ConstExpr::Value(Value::I32(start)),
            ..
        } => Some(start.cast_unsigned()),
        _ => None,
    }
}

fn range_in(start: u32, place: &Range<u32>) -> Option<Range<usize>> {
    let first = place.start.checked_sub(start)? as usize;
    Some(first..first + place.len())
}

fn is_panic(module: &Module, id: FunctionId) -> bool {
    let function = module.funcs.get(id);
    let FunctionKind::Local(local) = &function.kind else {
        return false;
    };
    let name = function.name.as_deref().unwrap_or_default();
    let body = &local.block(local.entry_block()).instrs;
    let comes_back = !matches!(body.last(), Some((Instr::Unreachable(_), _)));
    let is_panic = !comes_back && PANICS.iter().any(|part| name.contains(part));
    is_panic || name.contains(DEBUG)
}

fn trap(module: &mut Module, id: FunctionId) {
    let ty = module.types.get(module.funcs.get(id).ty());
    let (params, results) = (ty.params().to_vec(), ty.results().to_vec());
    let arguments = params.iter().map(|&ty| module.locals.add(ty)).collect();
    let mut builder = FunctionBuilder::new(&mut module.types, &params, &results);
    builder.func_body().unreachable();
    module.funcs.get_mut(id).kind = FunctionKind::Local(builder.local_func(arguments));
}
