//! Messages off a line.

use super::line::Line;
use super::model::Content;

/// Reads messages off a line, bytes of a pipelined successor kept.
pub(in crate::worker::tests) struct Reader<L> {
    pub(in crate::worker::tests) line: L,
    bytes: Vec<u8>,
}

impl<L: Line> Reader<L> {
    pub(in crate::worker::tests) fn new(line: L) -> Self {
        Self {
            line,
            bytes: Vec::new(),
        }
    }

    async fn fill(&mut self) -> bool {
        self.try_fill().await.unwrap_or(false)
    }

    /// False at the peer's end.
    async fn try_fill(&mut self) -> std::io::Result<bool> {
        let came = self.line.read().await?;
        self.bytes.extend_from_slice(&came);
        Ok(!came.is_empty())
    }

    /// All up to `mark`, with it.
    async fn up_to(&mut self, mark: &[u8]) -> Option<String> {
        let mut seen = 0;
        loop {
            let fresh = &self.bytes[seen..];
            if let Some(at) = fresh.windows(mark.len()).position(|some| some == mark) {
                let text = self.bytes.drain(..seen + at + mark.len()).collect();
                return String::from_utf8(text).ok();
            }
            seen = self.bytes.len().saturating_sub(mark.len() - 1);
            if !self.fill().await {
                return None;
            }
        }
    }

    pub(in crate::worker::tests) async fn head(&mut self) -> Option<String> {
        self.up_to(b"\r\n\r\n").await
    }

    async fn exactly(&mut self, len: usize) -> Option<Vec<u8>> {
        while self.bytes.len() < len {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.bytes.drain(..len).collect())
    }

    /// The body that `head` announces.
    pub(in crate::worker::tests) async fn body(&mut self, head: &str) -> Option<Content> {
        let head = head.to_ascii_lowercase();
        let mut content = Content::default();
        if head.contains("transfer-encoding: chunked") {
            loop {
                let size = self.up_to(b"\r\n").await?;
                let size = usize::from_str_radix(size.trim(), 16).ok()?;
                if size == 0 {
                    break;
                }
                content.bytes.extend(self.exactly(size).await?);
                self.exactly(2).await?;
            }
            loop {
                let line = self.up_to(b"\r\n").await?;
                if line == "\r\n" {
                    return Some(content);
                }
                content.trailers.push_str(&line);
            }
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(Some(0), |length| length.trim().parse().ok())?;
        content.bytes = self.exactly(length).await?;
        Some(content)
    }

    /// All there is until the peer ends in order.
    pub(in crate::worker::tests) async fn until_end(&mut self) -> Option<Vec<u8>> {
        while self.try_fill().await.ok()? {}
        Some(std::mem::take(&mut self.bytes))
    }

    /// All there is until the peer ends, or the connection breaks.
    pub(in crate::worker::tests) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.bytes)
    }
}
