//! Has panics of the browser's module end it at once: no browser shows their messages, which are a part of its bytes.
//! What `wasm-snip` does, by the library that wasm-bindgen works on modules with.

use walrus::{FunctionBuilder, FunctionId, FunctionKind, Module, ValType, passes::gc};

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

/// Replaces each such function of a module that has its functions' names, and removes what they alone need.
pub(crate) fn forget(module: &mut Module) {
    let functions: Vec<_> = module.funcs.iter().map(|function| function.id()).collect();
    for id in functions {
        if is_panic(module, id) {
            trap(module, id);
        }
    }
    gc::run(module);
}

fn is_panic(module: &Module, id: FunctionId) -> bool {
    let function = module.funcs.get(id);
    let is_local = matches!(function.kind, FunctionKind::Local(_));
    // One that gives something comes back.
    let comes_back = !module.types.get(function.ty()).results().is_empty();
    let name = function.name.as_deref().unwrap_or_default();
    is_local && !comes_back && PANICS.iter().any(|part| name.contains(part))
}

fn trap(module: &mut Module, id: FunctionId) {
    let ty = module.types.get(module.funcs.get(id).ty());
    let params: Vec<ValType> = ty.params().to_vec();
    let arguments = params.iter().map(|&ty| module.locals.add(ty)).collect();
    let mut builder = FunctionBuilder::new(&mut module.types, &params, &[]);
    builder.func_body().unreachable();
    module.funcs.get_mut(id).kind = FunctionKind::Local(builder.local_func(arguments));
}
