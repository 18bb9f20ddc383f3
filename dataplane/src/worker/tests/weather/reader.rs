//! Messages off a stream.

use std::io::Read;
use std::net::TcpStream;

use super::model::Content;

/// Reads messages off a stream, bytes of a pipelined successor kept.
pub(super) struct Reader {
    pub(super) stream: TcpStream,
    bytes: Vec<u8>,
}

impl Reader {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
        }
    }

    fn fill(&mut self) -> bool {
        self.try_fill().unwrap_or(false)
    }

    /// False at the peer's end.
    fn try_fill(&mut self) -> std::io::Result<bool> {
        let mut buffer = [0; 8192];
        let len = self.stream.read(&mut buffer)?;
        self.bytes.extend_from_slice(&buffer[..len]);
        Ok(len > 0)
    }

    pub(super) fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.bytes.drain(..end + 4).collect();
                return String::from_utf8(head).ok();
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn exactly(&mut self, len: usize) -> Option<Vec<u8>> {
        while self.bytes.len() < len {
            if !self.fill() {
                return None;
            }
        }
        Some(self.bytes.drain(..len).collect())
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.bytes.drain(..end + 2).collect();
                return String::from_utf8(line).ok();
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// The body that `head` announces.
    pub(super) fn body(&mut self, head: &str) -> Option<Content> {
        let head = head.to_ascii_lowercase();
        let mut content = Content::default();
        if head.contains("transfer-encoding: chunked") {
            loop {
                let size = usize::from_str_radix(self.line()?.trim(), 16).ok()?;
                if size == 0 {
                    break;
                }
                content.bytes.extend(self.exactly(size)?);
                self.exactly(2)?;
            }
            loop {
                let line = self.line()?;
                if line == "\r\n" {
                    return Some(content);
                }
                content.trailers.push_str(&line);
            }
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        content.bytes =
            self.exactly(length.map_or(Some(0), |length| length.trim().parse().ok())?)?;
        Some(content)
    }

    /// All there is until the peer ends in order.
    pub(super) fn until_end(&mut self) -> Option<Vec<u8>> {
        while self.try_fill().ok()? {}
        Some(std::mem::take(&mut self.bytes))
    }

    /// All there is until the peer ends, or the connection breaks.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.bytes)
    }
}
