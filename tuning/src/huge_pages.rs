//! Transparent huge pages: where a system gives them to everybody, a sparse memory becomes a full one.

use std::io;

use rustix::thread::disable_transparent_huge_pages;

/// Asks for none in this process (`PR_SET_THP_DISABLE`), whatever the system's setting is. Memory that is
/// reserved for the worst case and touched here and there stays as small as what was touched, and what is
/// given back stays given back: the kernel collects no pages around it.
///
/// # Errors
/// The system's; it forbids this to nobody, but a sandbox's filter may.
pub fn refuse() -> io::Result<()> {
    disable_transparent_huge_pages(true).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_that_there_will_be_none() {
        refuse().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(status.contains("\nTHP_enabled:\t0\n"), "{status}");
    }
}
