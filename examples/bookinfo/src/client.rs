//! Outgoing calls: plain names, through `http_proxy` if it is set, one connection per call.

use std::io::{self, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::http::{Request, parse_answer, read_body, read_head};

/// Longer than any rule of the demo, so that it is the mesh that gives up and not the program.
const PATIENCE: Duration = Duration::from_secs(60);

/// Headers that programs pass on so that traces stay whole.
const PASSED_ON: [&str; 4] = ["x-request-id", "traceparent", "tracestate", "b3"];

#[derive(Debug)]
pub(crate) struct Client {
    /// `host:port` of the proxy.
    proxy: Option<String>,
    user_agent: String,
}

impl Client {
    /// Reads `http_proxy`, as programs do.
    pub(crate) fn from_environment(user_agent: &str) -> Self {
        let proxy = std::env::var("http_proxy")
            .ok()
            .filter(|url| !url.is_empty());
        let address = |url: String| {
            let url = url.strip_prefix("http://").unwrap_or(&url);
            url.trim_end_matches('/').to_owned()
        };
        Self {
            proxy: proxy.map(address),
            user_agent: user_agent.to_owned(),
        }
    }

    /// `GET http://HOST:PORT/path` on behalf of `cause`; status and body.
    pub(crate) fn get(
        &self,
        authority: &str,
        path: &str,
        cause: &Request,
    ) -> io::Result<(u16, String)> {
        let (to, target) = match &self.proxy {
            Some(proxy) => (proxy.as_str(), format!("http://{authority}{path}")),
            None => (authority, path.to_owned()),
        };
        let mut head = format!(
            "GET {target} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: {}\r\nconnection: close\r\n",
            self.user_agent
        );
        for name in PASSED_ON {
            if let Some(value) = cause.header(name) {
                head += &format!("{name}: {value}\r\n");
            }
        }
        let mut conn = TcpStream::connect(to)?;
        conn.set_read_timeout(Some(PATIENCE))?;
        conn.write_all((head + "\r\n").as_bytes())?;
        let mut reader = BufReader::new(conn);
        let head = read_head(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (status, headers) = parse_answer(&head)?;
        let mut body = Vec::new();
        read_body(&mut reader, &headers, true, &mut body)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}
