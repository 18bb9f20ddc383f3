//! Standard output of the tools. It may close (`| head`) or be a full disk: `println!` would end in
//! a panic with a backtrace.
//!
//! [`out!`](crate::out) and [`outln!`](crate::outln) write as `print!` and `println!` do, and end the
//! process where that fails. [`errln!`](crate::errln) writes as `eprintln!` does, and where that fails there
//! is nobody to tell: work goes on.

use std::fmt;
use std::io::{self, Write as _};

/// Writes, or ends the process with the status of [`failed`].
pub fn write(text: fmt::Arguments<'_>) {
    if let Err(error) = try_write(text) {
        std::process::exit(failed(&error));
    }
}

/// Writes, all of it, now.
///
/// # Errors
/// The system's.
pub fn try_write(text: fmt::Arguments<'_>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_fmt(text)?;
    stdout.flush()
}

/// Writes to standard error, if anybody reads it.
pub fn complain(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// The status to end with. Whoever closed our output wants no more of it, and no word about it:
/// 141, which shells show for an end by SIGPIPE. Anything else is said on standard error: 1.
#[must_use]
pub fn failed(error: &io::Error) -> i32 {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return 128 + 13;
    }
    // There is nowhere left to complain where this fails too.
    let _ = writeln!(io::stderr(), "standard output: {error}");
    1
}

/// `print!` for a standard output that may fail.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::stdout::write(format_args!($($text)*)) };
}

/// `println!` for a standard output that may fail.
#[macro_export]
macro_rules! outln {
    ($format:literal $($arguments:tt)*) => {
        $crate::stdout::write(format_args!("{}\n", format_args!($format $($arguments)*)))
    };
}

/// `eprintln!` for a standard error that may be closed.
#[macro_export]
macro_rules! errln {
    ($format:literal $($arguments:tt)*) => {
        $crate::stdout::complain(format_args!("{}\n", format_args!($format $($arguments)*)))
    };
}
