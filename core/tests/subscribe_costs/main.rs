//! What subscriptions cost that have nothing to read, or do not read; counted where the system tells it.

#[cfg(target_os = "linux")]
mod linux;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
}
