//! Certificates and keys from PEM files; what is wrong with one is told with its line.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, InconsistentKeys};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::problem::Problem;

const CERTIFICATE: &[&str] = &["CERTIFICATE"];
/// PKCS#8, PKCS#1, SEC1.
const KEYS: &[&str] = &["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];

/// A certificate of ours with its key.
#[derive(Debug)]
pub(in crate::load) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    cert_file: PathBuf,
    cert_line: usize,
    key_file: PathBuf,
    key_line: usize,
}

impl Identity {
    /// # Errors
    /// File and line of what is no certificate, or no key.
    pub(in crate::load) fn read(cert: &Path, key: &Path) -> Result<Self, Problem> {
        let chain = certificates(cert)?;
        let (key_line, own) = private_key(key)?;
        Ok(Self {
            cert_line: chain[0].0,
            chain: chain.into_iter().map(|(_, one)| one).collect(),
            key: own,
            cert_file: cert.to_owned(),
            key_file: key.to_owned(),
            key_line,
        })
    }

    /// # Errors
    /// File and line of a key that is none, or is another certificate's.
    pub(in crate::load) fn shown_by(
        self,
        builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> Result<ClientConfig, Problem> {
        let built = builder.with_client_auth_cert(self.chain, self.key);
        built.map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => wrong(
                &self.key_file,
                self.key_line,
                &format!(
                    "not the key of the certificate at {}:{}, which has to be the first of its chain",
                    self.cert_file.display(),
                    self.cert_line
                ),
            ),
            rustls::Error::InvalidCertificate(why) => {
                wrong(&self.cert_file, self.cert_line, &format!("no certificate: {why}"))
            }
            other => wrong(&self.key_file, self.key_line, &format!("no key: {other}")),
        })
    }
}

/// The certificates in `file`, at least one, with the lines they begin at.
///
/// # Errors
/// File and line of what is none.
pub(super) fn certificates(file: &Path) -> Result<Vec<(usize, CertificateDer<'static>)>, Problem> {
    let text = read(file)?;
    let sections = sections(&text, CERTIFICATE).map_err(|bad| bad.of(file))?;
    if sections.is_empty() {
        let why = "no certificate in it: there is no line -----BEGIN CERTIFICATE-----";
        return Err(Problem::Yours(format!("{}: {why}", file.display())));
    }
    let read = sections.iter().map(|section| {
        let one = CertificateDer::from_pem_slice(section.text.as_bytes());
        let one = one.map_err(|error| wrong(file, section.line, &error.to_string()))?;
        Ok((section.line, one))
    });
    read.collect()
}

fn private_key(file: &Path) -> Result<(usize, PrivateKeyDer<'static>), Problem> {
    let text = read(file)?;
    let found = sections(&text, KEYS).map_err(|bad| bad.of(file))?;
    let Some(section) = found.first() else {
        let encrypted = sections(&text, &["ENCRYPTED PRIVATE KEY"]).map_err(|bad| bad.of(file))?;
        if let Some(section) = encrypted.first() {
            return Err(wrong(file, section.line, ENCRYPTED));
        }
        let why = "no private key in it: there is no line -----BEGIN PRIVATE KEY-----";
        return Err(Problem::Yours(format!("{}: {why}", file.display())));
    };
    let key = PrivateKeyDer::from_pem_slice(section.text.as_bytes());
    let key = key.map_err(|error| wrong(file, section.line, &error.to_string()))?;
    Ok((section.line, key))
}

const ENCRYPTED: &str =
    "the key is encrypted; `openssl pkey -in FILE -out PLAIN` writes one that can be read";

/// What is wrong at a line of a file.
pub(super) fn wrong(file: &Path, line: usize, why: &str) -> Problem {
    Problem::Yours(format!("{}:{line}: {why}", file.display()))
}

fn read(file: &Path) -> Result<String, Problem> {
    let bytes = fs::read(file)
        .map_err(|error| Problem::Yours(format!("{} is not readable: {error}", file.display())))?;
    let text = String::from_utf8(bytes);
    text.map_err(|_| {
        let why = "not PEM; `openssl x509 -inform der -in FILE` or `openssl pkey -inform der -in FILE` writes that";
        Problem::Yours(format!("{}: {why}", file.display()))
    })
}

/// From a BEGIN line to its END line.
#[derive(Debug, PartialEq, Eq)]
struct Section<'a> {
    /// Of BEGIN; the first is 1.
    line: usize,
    text: &'a str,
}

#[derive(Debug, PartialEq, Eq)]
struct Bad {
    line: usize,
    why: String,
}

impl Bad {
    fn of(&self, file: &Path) -> Problem {
        wrong(file, self.line, &self.why)
    }
}

/// The sections of `text` with one of these labels. What stands between sections is for people.
fn sections<'a>(text: &'a str, labels: &[&str]) -> Result<Vec<Section<'a>>, Bad> {
    let mut found = Vec::new();
    // Line, place and label of the BEGIN we are behind.
    let mut open: Option<(usize, usize, &str)> = None;
    let mut at = 0;
    for (number, whole) in (1..).zip(text.split_inclusive('\n')) {
        let (begin, line) = (at, whole.trim());
        at += whole.len();
        let bad = |why: String| Bad { line: number, why };
        match open {
            None => {
                if let Some(label) = marker(line, "BEGIN") {
                    open = Some((number, begin, label));
                }
            }
            Some((since, from, label)) if marker(line, "END") == Some(label) => {
                open = None;
                if labels.contains(&label) {
                    found.push(Section {
                        line: since,
                        text: &text[from..at],
                    });
                }
            }
            Some((since, _, label)) if line.starts_with("-----") => {
                return Err(bad(format!(
                    "here should be base64 or -----END {label}----- (begun at line {since})"
                )));
            }
            // RFC 1421 section 4.6: fields before an encrypted body.
            Some(_) if line.starts_with("Proc-Type:") => return Err(bad(ENCRYPTED.to_owned())),
            Some((_, _, label)) if labels.contains(&label) => {
                let odd = line.chars().find(|c| !is_base64(*c));
                if let Some(odd) = odd {
                    return Err(bad(format!("{odd:?} is not base64")));
                }
            }
            Some(_) => {}
        }
    }
    match open {
        Some((line, _, label)) => Err(Bad {
            line,
            why: format!("-----END {label}----- is missing: is the file cut off?"),
        }),
        None => Ok(found),
    }
}

/// The label of a BEGIN or END line.
fn marker<'a>(line: &'a str, which: &str) -> Option<&'a str> {
    let rest = line.strip_prefix("-----")?.strip_prefix(which)?;
    rest.strip_prefix(' ')?.strip_suffix("-----")
}

fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n";

    fn lines(text: &str) -> Result<Vec<usize>, Bad> {
        let found = sections(text, CERTIFICATE)?;
        Ok(found.iter().map(|section| section.line).collect())
    }

    #[test]
    fn sections_are_found_between_words_for_people() {
        let text = format!("subject: x\n{ONE}\n# another\n{ONE}");
        assert_eq!(lines(&text), Ok(vec![2, 7]));
        assert_eq!(sections(&text, CERTIFICATE).unwrap()[1].text, ONE);
        let windows = text.replace('\n', "\r\n");
        assert_eq!(lines(&windows), Ok(vec![2, 7]));
        let key = ONE.replace("CERTIFICATE", "PRIVATE KEY");
        assert_eq!(lines(&format!("{key}{ONE}")), Ok(vec![4]));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let why = |text: &str| {
            let bad = lines(text).unwrap_err();
            (bad.line, bad.why)
        };
        let (line, text) = why(&ONE.replace("TUlJ", "TUlJ\nTU*J"));
        assert_eq!((line, text.as_str()), (3, "'*' is not base64"));
        let (line, text) = why("\n-----BEGIN CERTIFICATE-----\nTUlJ\n");
        assert!(line == 2 && text.contains("cut off"), "{line}: {text}");
        let (line, text) = why(&format!("-----BEGIN CERTIFICATE-----\nTUlJ\n{ONE}"));
        assert!(
            line == 3 && text.contains("begun at line 1"),
            "{line}: {text}"
        );
    }

    #[test]
    fn an_encrypted_key_is_told_as_that() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        for text in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nTUlJ\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nTUlJ\n-----END EC PRIVATE KEY-----\n",
        ] {
            fs::write(&file, text).unwrap();
            let why = private_key(&file).unwrap_err().to_string();
            assert!(
                why.contains("key.pem:") && why.contains("encrypted"),
                "{why}"
            );
        }
    }
}
