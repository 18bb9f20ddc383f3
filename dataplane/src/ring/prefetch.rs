//! Hints to the CPU about memory that is needed soon.

/// Bytes of a cache line on the machines this is for.
const LINE_BYTES: usize = 64;

/// Starts to fetch the cache lines of `value`, without waiting for them.
#[inline(always)]
pub(super) fn fetch<T>(value: &T) {
    fetch_bytes(std::ptr::from_ref(value).cast(), size_of::<T>());
}

/// Starts to fetch the cache lines of `len` bytes at `start`, wherever that is.
#[inline(always)]
pub(super) fn fetch_bytes(start: *const u8, len: usize) {
    for at in (0..len).step_by(LINE_BYTES) {
        fetch_line(start.wrapping_add(at));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn fetch_line(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint reads nothing that a program could see, and faults at no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

/// Stable Rust has the hint for x86-64 only.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn fetch_line(_at: *const u8) {}
