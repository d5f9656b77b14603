;; A guest of a later ABI.
(module
  (memory (export "memory") 1)
  (func (export "abi_version") (result i32) (i32.const 4)))
