;; A guest that keeps the ABI's shape and nothing else. What `read` does wrong is chosen by the offset.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (memory (export "memory") 4)
  ;; 0: the text of last_error.
  (data (i32.const 0) "it is in a bad mood")
  ;; 32: not UTF-8.
  (data (i32.const 32) "\ff\fe")
  ;; 64: a sound record, `x` at offset 3, as the book's program writes it.
  (data (i32.const 64) "\00\00\00\00\00\00\00\05\0a\01x\10\03")
  ;; 96: a frame that claims more bytes than there are.
  (data (i32.const 96) "\7f\ff\ff\ff\ff\ff\ff\ff\0a\01x\10\03")
  ;; 128: JSON, but no report.
  (data (i32.const 128) "{\"segments\":7}")
  ;; 160: last words, and where they are and how long.
  (data (i32.const 160) "panicked:\n  no more")
  (data (i32.const 192) "\a0\00\00\00\13\00\00\00")
  ;; 208: the name of a file.
  (data (i32.const 208) "hoarded")

  ;; What last_error gives.
  (global $message (mut i64) (i64.const 0x13_00000000))
  ;; How often the guest was opened is in no one's memory: each is a new instance.
  (global $calls (mut i64) (i64.const 0))

  (func $packed (param $ptr i64) (param $len i64) (result i64)
    (i64.or (i64.shl (local.get $len) (i64.const 32)) (local.get $ptr)))

  (func $for_ever (loop $again (br $again)))
  (func $deeper (result i64) (i64.add (i64.const 1) (call $deeper)))

  (func (export "abi_version") (result i32) (i32.const 3))
  ;; A small buffer is in its memory, a large one is not.
  (func (export "alloc") (param $len i32) (result i32)
    (if (result i32) (i32.gt_u (local.get $len) (i32.const 0x20000))
      (then (i32.const 0xffff0000))
      (else (i32.const 0x10000))))
  (func (export "dealloc") (param i32 i32) (result i32) (i32.const 0))
  (func (export "open") (param i32 i32 i32 i64 i64 i64 i64) (result i32) (i32.const 1))
  ;; With the promise `written` it makes a file, as for a new segment. Else it fails, and its message is not text.
  (func (export "append") (param i32 i32 i32 i64) (param $promise i32) (param i64) (result i64)
    (if (i32.eq (local.get $promise) (i32.const 2))
      (then
        (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 208) (i32.const 7) (i32.const 1)
          (i64.const 0x40) (i64.const 0) (i32.const 0) (i32.const 224)))
        (return (i64.const 0))))
    (global.set $message (call $packed (i64.const 32) (i64.const 2)))
    (i64.const -10))
  (func (export "append_batch") (param i32 i32 i32 i32 i64) (result i64) (i64.const -8))
  (func (export "append_drafts") (param i32 i32 i32 i32 i64) (result i64) (i64.const -8))
  ;; To an id of one byte as few bytes as it likes; to others a conflict without numbers.
  (func (export "producer_last") (param $handle i32) (param $id i32) (param $id_len i32) (result i64)
    (if (result i64) (i32.eq (local.get $id_len) (i32.const 1))
      (then (call $packed (i64.const 64) (i64.const 15)))
      (else (i64.const -13))))
  (func (export "last_conflict") (result i64) (call $packed (i64.const 64) (i64.const 17)))

  (func (export "read") (param $handle i32) (param $offset i64) (result i64)
    (block $3 (block $4 (block $5 (block $6 (block $7 (block $8 (block $9 (block $10
    (block $2 (block $1 (block $0
      (br_table $0 $1 $2 $3 $4 $5 $6 $7 $8 $9 $10 (i32.wrap_i64 (local.get $offset))))
      ;; 0: traps, with last words.
      (drop (call $fd_write (i32.const 2) (i32.const 192) (i32.const 1) (i32.const 200)))
      unreachable)
      ;; 1: does not return.
      (call $for_ever)
      unreachable)
      ;; 2: calls itself until its stack is used up.
      (return (call $deeper)))
      ;; 10: fails, and its message is outside its memory.
      (global.set $message (i64.const 0x7fffffff_ffffffff))
      (return (i64.const -3)))
      ;; 9: fails as it should.
      (return (i64.const -2)))
      ;; 8: no status.
      (return (i64.const -77)))
      ;; 7: the frame of another record.
      (return (call $packed (i64.const 64) (i64.const 13))))
      ;; 6: a frame that runs past its bytes.
      (return (call $packed (i64.const 96) (i64.const 13))))
      ;; 5: bytes past the end of its memory.
      (return (call $packed (i64.const 0x3fffc) (i64.const 8))))
      ;; 4: more bytes than it can have.
      (return (call $packed (i64.const 0) (i64.const 0x7fffffff))))
      ;; 3: the sound one.
      (call $packed (i64.const 64) (i64.const 13)))

  ;; The record of offset 3, whatever is asked for, and then one that is not the next.
  (func (export "read_batch") (param i32 i64 i32) (result i64)
    (call $packed (i64.const 64) (i64.const 45)))
  (func (export "truncate_before") (param i32 i64) (result i32) (i32.const 5))
  (func (export "truncate_after") (param i32 i64) (result i32) (i32.const -2147483648))
  (func (export "skip_to") (param i32 i64 i32) (result i32) (i32.const 5))
  (func (export "reset") (param i32) (result i32) (i32.const 0))
  ;; Where tombstones are not kept it does not return; else it gives JSON of something else.
  (func (export "compact") (param i32 i64) (param $tombstones_kept_ms i64) (param i64) (result i64)
    (if (i64.eqz (local.get $tombstones_kept_ms)) (then (call $for_ever)))
    (call $packed (i64.const 128) (i64.const 14)))
  (func (export "enforce_retention") (param i32 i64 i64 i64) (result i32) (i32.const 5))
  (func (export "sync") (param i32) (result i32) (i32.const 0))
  (func (export "refresh") (param i32) (result i32) (i32.const 0))
  (func (export "close") (param i32) (result i32) (i32.const 0))
  (func (export "lowest_offset") (param i32) (result i64) (i64.const -9223372036854775808))
  ;; How often it was called: 1 in a new instance.
  (func (export "next_offset") (param i32) (result i64)
    (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
    (global.get $calls))
  ;; Opens a file until it may no more, and says how often that was. Of those it has open then, it closes one.
  (func (export "durable_offset") (param i32) (result i64)
    (local $opened i64)
    (loop $again
      (if (i32.eqz (call $path_open (i32.const 3) (i32.const 0) (i32.const 208) (i32.const 7) (i32.const 1)
            (i64.const 0x40) (i64.const 0) (i32.const 0) (i32.const 224)))
        (then
          (local.set $opened (i64.add (local.get $opened) (i64.const 1)))
          (br $again))))
    (drop (call $fd_close (i32.const 5)))
    (local.get $opened))
  (func (export "locate") (param i32 i64) (result i64) (call $packed (i64.const 64) (i64.const 15)))
  (func (export "recovery_report") (param i32) (result i64) (call $packed (i64.const 128) (i64.const 14)))
  (func (export "verify") (param i32) (result i64) (call $for_ever) (i64.const 0))
  (func (export "segments") (param i32) (result i64) (call $packed (i64.const 0) (i64.const 0)))
  (func (export "last_error") (result i64) (global.get $message)))
