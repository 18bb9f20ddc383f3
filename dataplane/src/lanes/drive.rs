//! The lanes of a connection on any bytes, for fuzzers and their kept findings.

use super::core::{Core, Side};
use super::frame::{Decoder, FrameFault, Step};
use super::limits::{LANES_MAX, WINDOW_BYTES};
use crate::ring::{Chunk, Ring};
use crate::time::Mono;

/// Frames are the same whatever the pieces they come in, and what they carry is never more than came.
///
/// # Panics
/// If not.
pub fn frames(bytes: &[u8], step: usize) {
    let whole = decoded(bytes, bytes.len().max(1));
    assert_eq!(whole, decoded(bytes, step.max(1)));
}

/// Frame heads, and bytes carried behind them.
fn decoded(bytes: &[u8], step: usize) -> (Vec<Step>, usize, Option<FrameFault>) {
    let mut decoder = Decoder::default();
    let (mut heads, mut carried) = (Vec::new(), 0);
    for mut piece in bytes.chunks(step) {
        while !piece.is_empty() {
            let len = match decoder.next(piece) {
                Err(fault) => return (heads, carried, Some(fault)),
                Ok(Step::Frame { len, frame }) => {
                    heads.push(Step::Frame { len: 0, frame });
                    len
                }
                Ok(Step::Bytes { len, .. }) => {
                    carried += len;
                    len
                }
                Ok(Step::More { len }) => len,
            };
            piece = piece.get(len..).expect("no more is taken than there is");
        }
    }
    assert!(carried <= bytes.len());
    (heads, carried, None)
}

/// Whatever a peer sends, either side keeps no more than its bounds and says no more than it was asked.
///
/// # Panics
/// If not.
pub fn hostile(ring: &Ring, bytes: &[u8], step: usize) {
    for side in [Side::Opener, Side::Answerer] {
        let mut core = Core::new(side, Mono::default());
        if side == Side::Opener {
            let _ = (core.open(), core.open());
        }
        let mut frames = 0;
        for piece in bytes.chunks(step.clamp(1, 16 * 1024)) {
            let Some(mut buf) = ring.buf() else { return };
            buf.extend_from_slice(piece).expect("a piece fits");
            if core.receive(buf.freeze(), ring, Mono::default()).is_err() {
                break;
            }
            frames += piece.len() / 8 + 1;
            // Two lanes that are read, the others are not.
            for _ in 0..2 {
                if let Some(id) = core.accept() {
                    while let Some(Ok(Chunk { .. })) = core
                        .try_recv(id)
                        .filter(|r| r.as_ref().is_ok_and(|chunk| !chunk.is_empty()))
                    {
                    }
                    core.let_go(id);
                }
            }
            let said = core.take_output(ring).len();
            assert!(
                said <= 8 * (2 * frames + 3 * LANES_MAX),
                "{said} bytes said"
            );
            assert!(core.kept() <= LANES_MAX * WINDOW_BYTES as usize);
        }
    }
}
