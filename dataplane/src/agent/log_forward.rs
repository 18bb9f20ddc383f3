//! Access-log lines on their way to control (pure): numbered, sent again until acknowledged, and
//! what does not fit is dropped oldest first, so that control sees exactly how many are missing.

use std::collections::VecDeque;

use ringmesh_wire::{LogAck, LogBatch, NodeId};

/// Bytes that wait while control is away.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Lines and bytes of one batch; far below the frame limit.
const BATCH_LINES_MAX: usize = 2_000;
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// The queue.
#[derive(Debug)]
pub struct Forward {
    node: NodeId,
    boot: u64,
    /// Number of the first waiting line.
    first: u64,
    waiting: VecDeque<String>,
    bytes: usize,
    dropped: u64,
}

impl Forward {
    /// An empty queue of this process.
    #[must_use]
    pub fn new(node: NodeId, boot: u64) -> Self {
        Self {
            node,
            boot,
            first: 0,
            waiting: VecDeque::new(),
            bytes: 0,
            dropped: 0,
        }
    }

    /// Takes whole lines, each ended by a line feed.
    pub fn push(&mut self, lines: &[u8]) {
        for line in lines.split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let line = String::from_utf8_lossy(line).into_owned();
            self.bytes += line.len();
            self.waiting.push_back(line);
        }
        while self.bytes > WAITING_BYTES_MAX {
            self.drop_first();
            self.dropped += 1;
        }
    }

    fn drop_first(&mut self) {
        if let Some(line) = self.waiting.pop_front() {
            self.bytes -= line.len();
            self.first += 1;
        }
    }

    /// The next batch, if anything waits. Nothing is forgotten until it is acknowledged.
    #[must_use]
    pub fn batch(&self) -> Option<LogBatch> {
        let mut bytes = 0;
        let lines: Vec<String> = self
            .waiting
            .iter()
            .take(BATCH_LINES_MAX)
            .take_while(|line| {
                let fits = bytes == 0 || bytes + line.len() <= BATCH_BYTES_MAX;
                bytes += line.len();
                fits
            })
            .cloned()
            .collect();
        (!lines.is_empty()).then(|| LogBatch {
            node: self.node.clone(),
            boot: self.boot,
            first: self.first,
            dropped: self.dropped,
            lines,
        })
    }

    /// Control has stored everything before `ack.next`.
    pub fn acknowledged(&mut self, ack: &LogAck) {
        while self.first < ack.next && !self.waiting.is_empty() {
            self.drop_first();
        }
    }

    /// Lines that wait, and lines dropped since start.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        (self.waiting.len(), self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward() -> Forward {
        Forward::new(NodeId("n".into()), 1)
    }

    #[test]
    fn lines_are_numbered_and_kept_until_acknowledged() {
        let mut queue = forward();
        assert_eq!(queue.batch(), None);
        queue.push(b"a\nb\nc\n");
        let batch = queue.batch().unwrap();
        assert_eq!((batch.first, batch.lines.len()), (0, 3));
        assert_eq!(queue.batch().unwrap(), batch);
        queue.acknowledged(&LogAck { next: 2 });
        let batch = queue.batch().unwrap();
        assert_eq!((batch.first, batch.lines), (2, vec!["c".to_owned()]));
        // An acknowledgement of what was never sent empties the queue and breaks nothing.
        queue.acknowledged(&LogAck { next: 99 });
        queue.push(b"d\n");
        assert_eq!(queue.batch().unwrap().first, 3);
    }

    #[test]
    fn what_does_not_fit_is_dropped_oldest_first_and_counted_without_a_gap_in_numbers() {
        let mut queue = forward();
        let line = vec![b'x'; 1024];
        let mut lines = line.clone();
        lines.push(b'\n');
        for _ in 0..9_000 {
            queue.push(&lines);
        }
        let (waiting, dropped) = queue.counts();
        assert_eq!(waiting as u64 + dropped, 9_000);
        let batch = queue.batch().unwrap();
        assert_eq!((batch.first, batch.dropped), (dropped, dropped));
        assert!(batch.lines.iter().map(String::len).sum::<usize>() <= BATCH_BYTES_MAX);
    }
}
