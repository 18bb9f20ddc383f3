//! Heads as they leave: what belongs to the hop is gone, the length is said once, rules are applied,
//! every other field stays byte for byte and in its order.

use super::edits::{self, Edits};
use super::fields::{Field, Fields, Known};
use super::framing::Framing;
use super::request::Request;
use super::response::Response;
use super::sink::{Full, Sink, put_number};
use super::target::TargetForm;
use super::{Version, answer};

/// What becomes of `x-forwarded-client-cert`, by which an app learns who called it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientCert<'a> {
    /// As it came: on the caller's side it is the app's own business.
    #[default]
    Keep,
    /// Taken away: the caller proved nothing.
    Strip,
    /// Replaced by what the caller proved.
    Say(&'a str),
}

/// How a request head leaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestPlan<'a> {
    /// Path in place of the client's (normalised or rewritten); its query stays.
    pub path: Option<&'a str>,
    /// Host in place of the client's. Also used where HTTP/1.0 sent none.
    pub host: Option<&'a str>,
    /// Length of the body that will follow; normally [`Request::framing`].
    pub framing: Framing,
    /// `x-request-id`, in place of what the request has.
    pub request_id: Option<&'a str>,
    /// Send the upgrade on ([`Request::upgrade`] is `Some` and the route allows it).
    pub upgrade: bool,
    /// `x-forwarded-client-cert` of the request that leaves.
    pub client_cert: ClientCert<'a>,
    /// Ask the upstream to close after its answer.
    pub close: bool,
    /// Rules' changes, in order.
    pub edits: &'a [Edits<'a>],
}

impl RequestPlan<'_> {
    /// Writes the head. CONNECT keeps its authority form, OPTIONS `*`; everything else leaves in
    /// origin form, as HTTP/1.1.
    ///
    /// # Errors
    /// [`Full`]: the head is larger than the sink; answer 431 or try a larger one.
    pub fn put<S: Sink>(&self, request: &Request<'_>, sink: &mut S) -> Result<(), Full> {
        let mut out = Copier::new(sink, request.bytes);
        self.put_line(request, &mut out)?;
        let host = edits::host(self.edits)
            .or(self.host)
            .or(match request.form() {
                // The target's authority wins over Host and replaces it.
                TargetForm::Absolute | TargetForm::Authority => Some(request.authority()),
                TargetForm::Origin | TargetForm::Asterisk => None,
            });
        let fields = request.all();
        if fields.known(Known::Host).is_none() {
            out.put_field(b"host", host.unwrap_or("").as_bytes())?;
        }
        let keeps = Keeps {
            fields,
            framing: self.framing,
            upgrade: self.upgrade,
            edits: self.edits,
        };
        for field in request.list() {
            match (field.known, host) {
                (Known::Host, Some(host)) => {
                    out.put_field(field.name.bytes(request.bytes), host.as_bytes())?;
                }
                (Known::Host, None) => out.keep(field)?,
                // HTTP/1.0 cannot have meant it (RFC 9110 section 10.1.1).
                (Known::Expect, _) if request.version() == Version::Http10 => {}
                (Known::ClientCert, _) if self.client_cert != ClientCert::Keep => {}
                (Known::RequestId, _) if self.request_id.is_some() => {}
                _ if keeps.keeps(field, request.bytes) => out.keep(field)?,
                _ => {}
            }
        }
        if let Some(id) = self.request_id {
            out.put_field(b"x-request-id", id.as_bytes())?;
        }
        if let ClientCert::Say(proven) = self.client_cert {
            out.put_field(b"x-forwarded-client-cert", proven.as_bytes())?;
        }
        keeps.put_rest(&mut out)?;
        if self.upgrade {
            out.put(b"connection: upgrade\r\n")?;
        } else if self.close {
            out.put(b"connection: close\r\n")?;
        }
        out.put(b"\r\n")
    }

    /// Whether [`Self::put`] writes the line and every field as they came, but for `x-request-id`,
    /// `x-forwarded-client-cert`, `te` and `transfer-encoding`.
    #[must_use]
    pub fn keeps_all(&self, request: &Request<'_>) -> bool {
        let keeps = Keeps {
            fields: request.all(),
            framing: self.framing,
            upgrade: self.upgrade,
            edits: self.edits,
        };
        matches!(request.form(), TargetForm::Origin | TargetForm::Asterisk)
            && request.version() == Version::Http11
            && self.path.is_none_or(|path| path == request.path())
            && self.host.is_none()
            && !self.close
            && keeps.keeps_all(|known| {
                !known.is_of_the_hop() || matches!(known, Known::Te | Known::TransferEncoding)
            })
    }

    fn put_line<S: Sink>(
        &self,
        request: &Request<'_>,
        out: &mut Copier<'_, '_, S>,
    ) -> Result<(), Full> {
        let as_sent = matches!(
            request.form(),
            TargetForm::Origin | TargetForm::Asterisk | TargetForm::Authority
        ) && request.version() == Version::Http11;
        let same_path = self.path.is_none_or(|path| path == request.path());
        if as_sent && same_path {
            return out.copy(request.line());
        }
        out.put(request.method().as_bytes())?;
        out.put(b" ")?;
        match (request.form(), self.path) {
            (TargetForm::Authority, _) => out.put(request.target().as_bytes())?,
            (_, Some(path)) => put_path(out, path)?,
            (_, None) => out.put(request.path().as_bytes())?,
        }
        if let Some(query) = request.query() {
            out.put(b"?")?;
            out.put(query.as_bytes())?;
        }
        out.put(b" HTTP/1.1\r\n")
    }
}

/// A path that rules wrote may hold anything; what may not stand in a request line is encoded.
fn put_path<S: Sink>(out: &mut Copier<'_, '_, S>, path: &str) -> Result<(), Full> {
    let may_stand = |b: u8| b.is_ascii_graphic() && b != b'#' && b != b'?';
    if path.bytes().all(may_stand) {
        return out.put(path.as_bytes());
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in path.bytes() {
        if may_stand(byte) {
            out.put(&[byte])?;
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.put(&[b'%', HEX[high], HEX[low]])?;
        }
    }
    Ok(())
}

/// How a response head leaves.
#[derive(Debug, Clone, Copy)]
pub struct ResponsePlan<'a> {
    /// Version of the client this goes to.
    pub to: Version,
    /// The body that will follow, as the upstream frames it; [`Self::framing_out`] is what is said.
    pub framing: Framing,
    /// The answer to HEAD, or 304: there is no body, but its length may be told.
    pub tells_length_only: bool,
    /// The client's connection stays open after it. False where [`Self::framing_out`] is
    /// `UntilClose`, whatever stands here.
    pub keep_alive: bool,
    /// Switching protocols as asked (101).
    pub upgrade: bool,
    /// Rules' changes, in order.
    pub edits: &'a [Edits<'a>],
}

impl ResponsePlan<'_> {
    /// How the client is told the length: chunked where its version has it, so that the connection
    /// can stay open; until close for HTTP/1.0.
    #[must_use]
    pub fn framing_out(&self) -> Framing {
        match (self.framing, self.to) {
            (Framing::Chunked | Framing::UntilClose, Version::Http10) => Framing::UntilClose,
            (Framing::Chunked | Framing::UntilClose, Version::Http11) => Framing::Chunked,
            (Framing::None | Framing::Length(_), _) => self.framing,
        }
    }

    /// Whether the client's connection may carry another request after this answer.
    #[must_use]
    pub fn stays_open(&self) -> bool {
        self.keep_alive && self.framing_out() != Framing::UntilClose
    }

    /// Writes the head of a final answer or a 101.
    ///
    /// # Errors
    /// [`Full`]: the head is larger than the sink.
    pub fn put<S: Sink>(&self, response: &Response<'_>, sink: &mut S) -> Result<(), Full> {
        let mut out = Copier::new(sink, response.bytes);
        put_status_line(&mut out, response)?;
        let keeps = Keeps {
            fields: response.all(),
            framing: self.framing_out(),
            upgrade: self.upgrade,
            edits: self.edits,
        };
        for field in response.list() {
            let keep = match field.known {
                // Towards a server only, if anywhere.
                Known::Host => true,
                Known::ContentLength if self.tells_length_only => {
                    response.all().framing.length_plain
                }
                _ => keeps.keeps(field, response.bytes),
            };
            if keep {
                out.keep(field)?;
            }
        }
        keeps.put_rest(&mut out)?;
        if self.upgrade {
            out.put(b"connection: upgrade\r\n")?;
        } else if !self.stays_open() {
            out.put(b"connection: close\r\n")?;
        } else if self.to == Version::Http10 {
            out.put(b"connection: keep-alive\r\n")?;
        }
        out.put(b"\r\n")
    }

    /// Whether [`Self::put`] writes every field as it came.
    #[must_use]
    pub fn keeps_all(&self, response: &Response<'_>) -> bool {
        let keeps = Keeps {
            fields: response.all(),
            framing: self.framing_out(),
            upgrade: self.upgrade,
            edits: self.edits,
        };
        keeps.keeps_all(|known| !known.is_of_the_hop())
    }

    /// Writes an interim answer (100, 102, 103...). Not for HTTP/1.0 clients.
    ///
    /// # Errors
    /// [`Full`]: the head is larger than the sink.
    pub fn put_interim<S: Sink>(response: &Response<'_>, sink: &mut S) -> Result<(), Full> {
        let mut out = Copier::new(sink, response.bytes);
        put_status_line(&mut out, response)?;
        let keeps = Keeps {
            fields: response.all(),
            framing: Framing::None,
            upgrade: false,
            edits: &[],
        };
        for field in response.list() {
            if keeps.keeps(field, response.bytes) {
                out.keep(field)?;
            }
        }
        out.put(b"\r\n")
    }
}

fn put_status_line<S: Sink>(
    out: &mut Copier<'_, '_, S>,
    response: &Response<'_>,
) -> Result<(), Full> {
    out.put(b"HTTP/1.1 ")?;
    answer::put_status(out, response.status())?;
    out.put(b" ")?;
    out.put(response.reason_phrase().as_bytes())?;
    out.put(b"\r\n")
}

/// Which fields of a head are forwarded.
struct Keeps<'a> {
    fields: &'a Fields,
    framing: Framing,
    upgrade: bool,
    edits: &'a [Edits<'a>],
}

impl Keeps<'_> {
    fn keeps(&self, field: &Field, bytes: &[u8]) -> bool {
        match field.known {
            Known::ContentLength => self.keeps_length(),
            Known::Upgrade => self.upgrade,
            known if known.is_of_the_hop() => false,
            _ => {
                let plain = self.edits.is_empty() && !self.fields.connection.names_fields;
                plain || {
                    let name = field.name.bytes(bytes);
                    !edits::take_away(self.edits, name)
                        && !self.fields.is_named_by_connection(bytes, name)
                }
            }
        }
    }

    /// Whether no rule changes a field, the length is said as it came, and every field is written as
    /// this room would write it and of a kind that `may_stay`.
    fn keeps_all(&self, may_stay: impl Fn(Known) -> bool) -> bool {
        let length_stays = match self.framing {
            Framing::Length(_) => self.keeps_length(),
            Framing::None | Framing::Chunked | Framing::UntilClose => {
                self.fields.known(Known::ContentLength).is_none()
            }
        };
        let list = self.fields.list();
        length_stays
            && !self.upgrade
            && self.edits.is_empty()
            && list.iter().all(|field| field.tidy && may_stay(field.known))
    }

    /// The length that came says what the length that leaves has to say.
    fn keeps_length(&self) -> bool {
        let says = self.fields.framing;
        matches!(self.framing, Framing::Length(len) if says.length_plain && says.length == Some(len))
    }

    /// What rules put in, and the length if it is not said yet.
    fn put_rest<S: Sink>(&self, out: &mut Copier<'_, '_, S>) -> Result<(), Full> {
        for (name, value) in edits::put_in(self.edits) {
            out.put_field(name, value)?;
        }
        match self.framing {
            Framing::Chunked => out.put(b"transfer-encoding: chunked\r\n"),
            Framing::Length(len) if !self.keeps_length() => {
                out.put(b"content-length: ")?;
                put_number(out, len)?;
                out.put(b"\r\n")
            }
            Framing::Length(_) | Framing::None | Framing::UntilClose => Ok(()),
        }
    }
}

/// Writes, and joins neighbouring ranges of the source into one copy: an unchanged head is two or
/// three copies, not four per field.
struct Copier<'s, 'b, S> {
    sink: &'s mut S,
    bytes: &'b [u8],
    run: std::ops::Range<usize>,
}

impl<'s, 'b, S: Sink> Copier<'s, 'b, S> {
    fn new(sink: &'s mut S, bytes: &'b [u8]) -> Self {
        Self {
            sink,
            bytes,
            run: 0..0,
        }
    }

    fn flush(&mut self) -> Result<(), Full> {
        let run = std::mem::take(&mut self.run);
        match self.bytes.get(run) {
            Some([]) | None => Ok(()),
            Some(bytes) => self.sink.put(bytes),
        }
    }

    fn copy(&mut self, range: std::ops::Range<usize>) -> Result<(), Full> {
        if range.start == self.run.end {
            self.run.end = range.end;
            return Ok(());
        }
        self.flush()?;
        self.run = range;
        Ok(())
    }

    /// The field as it came.
    fn keep(&mut self, field: &Field) -> Result<(), Full> {
        if field.tidy {
            return self.copy(field.line());
        }
        let bytes = self.bytes;
        self.put_field(field.name.bytes(bytes), field.value.bytes(bytes))
    }

    fn put_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Full> {
        self.flush()?;
        self.sink.put(name)?;
        self.sink.put(b": ")?;
        self.sink.put(value)?;
        self.sink.put(b"\r\n")
    }
}

impl<S: Sink> Sink for Copier<'_, '_, S> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.flush()?;
        self.sink.put(bytes)
    }
}
