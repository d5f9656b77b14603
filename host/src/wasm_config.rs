// How the guest is compiled, and how it is run: one function, included by both build.rs and the
// library, because wasmtime refuses a module that was compiled with other settings.

fn wasm_config() -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config
        // A guest that does not return is stopped by the clock.
        .epoch_interruption(true)
        // Where in the module it trapped would be a number to those who see it; why, it says itself.
        .wasm_backtrace(false)
        .generate_address_map(false)
        // What the guest is built with, and nothing else.
        .wasm_simd(true)
        .wasm_relaxed_simd(false)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_tail_call(false);
    config
}
