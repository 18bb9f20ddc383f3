//! Keys at rest under a passphrase: PKCS #8, encrypted by PBES2 (RFC 8018), as `openssl pkcs8` reads and writes it.
//!
//! The passphrase stays in its file and is read whenever a key is: nothing here keeps, shows or logs it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pkcs8::der::EncodePem;
use pkcs8::der::asn1::OctetString;
use pkcs8::der::zeroize::Zeroizing;
use pkcs8::pkcs5::pbes2::Parameters;
use pkcs8::{EncryptedPrivateKeyInfoOwned, EncryptedPrivateKeyInfoRef, LineEnding, SecretDocument};
use rcgen::KeyPair;
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::ca::{CaError, random, signing};
use super::files::write_secret;

/// PBKDF2-HMAC-SHA256, as OWASP advises: some tenths of a second for each key, for us and for each guess.
const ROUNDS: u32 = 600_000;
/// Longest file with a passphrase, bytes.
const FILE_BYTES_MAX: u64 = 4_096;
const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// Where the passphrase of the CA's keys is. The default: they have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passphrase {
    file: Option<PathBuf>,
    /// The service manager keeps others from it.
    is_credential: bool,
}

fn wrong(path: &Path, why: impl Into<String>) -> CaError {
    CaError::Wrong {
        path: path.display().to_string(),
        why: why.into(),
    }
}

impl Passphrase {
    /// The first line of a file that nobody but its owner may read.
    #[must_use]
    pub fn file(path: PathBuf) -> Self {
        Self {
            file: Some(path),
            is_credential: false,
        }
    }

    /// A systemd credential. Its mode is not looked at: an access control list, which shows as a group's right,
    /// is what lets the service read it.
    #[must_use]
    pub fn credential(path: PathBuf) -> Self {
        Self {
            file: Some(path),
            is_credential: true,
        }
    }

    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, CaError> {
        let Some(path) = &self.file else {
            return Ok(None);
        };
        let failed = |source| CaError::File {
            path: path.display().to_string(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if !self.is_credential && about.permissions().mode() & 0o077 != 0 {
            let path_shown = path.display();
            return Err(wrong(
                path,
                format!("others may read this passphrase: chmod 600 {path_shown}"),
            ));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 1));
        let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
        if read.map_err(failed)? as u64 > FILE_BYTES_MAX {
            return Err(wrong(path, "more than 4 KiB are no passphrase"));
        }
        if let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            bytes.truncate(end);
        }
        if bytes.is_empty() {
            return Err(wrong(path, "holds no passphrase (its first line is empty)"));
        }
        Ok(Some(bytes))
    }

    /// The key in `text`, which was read from `path`: encrypted or not. `damaged` is what a key that is not
    /// encrypted and does not parse amounts to.
    pub(super) fn open(
        &self,
        path: &Path,
        text: &str,
        damaged: impl FnOnce(String) -> CaError,
    ) -> Result<KeyPair, CaError> {
        if !text.contains(ENCRYPTED) {
            return KeyPair::from_pem(text).map_err(|error| damaged(error.to_string()));
        }
        let (Some(passphrase), Some(file)) = (self.read()?, &self.file) else {
            return Err(wrong(
                path,
                "the key is under a passphrase: say where that is with --ca-passphrase-file FILE, or give it as \
                 the systemd credential ca-passphrase",
            ));
        };
        let unreadable = |error: &dyn std::fmt::Display| {
            let file = file.display();
            wrong(
                path,
                format!(
                    "the passphrase in {file} does not open this key, or the key is damaged ({error})"
                ),
            )
        };
        let (_, document) =
            SecretDocument::from_pem(text.trim()).map_err(|error| unreadable(&error))?;
        let sealed = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
            .map_err(|error| unreadable(&error))?;
        let key = sealed
            .decrypt(passphrase.as_slice())
            .map_err(|error| unreadable(&error))?;
        KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.as_bytes()))
            .map_err(|error| unreadable(&error))
    }

    /// Writes a key, under the passphrase if there is one.
    pub(super) fn write(&self, path: &Path, key: &KeyPair) -> Result<(), CaError> {
        let text = match self.read()? {
            None => Zeroizing::new(key.serialize_pem()),
            Some(passphrase) => {
                let (salt, iv): ([u8; 16], [u8; 16]) = (random()?, random()?);
                let how = Parameters::generate_pbkdf2_sha256_aes256cbc(ROUNDS, &salt, iv)
                    .map_err(signing)?;
                let plain = Zeroizing::new(key.serialize_der());
                let sealed = how
                    .encrypt(passphrase.as_slice(), &plain)
                    .map_err(signing)?;
                let sealed = EncryptedPrivateKeyInfoOwned {
                    encryption_algorithm: how.into(),
                    encrypted_data: OctetString::new(sealed).map_err(signing)?,
                };
                Zeroizing::new(sealed.to_pem(LineEnding::LF).map_err(signing)?)
            }
        };
        write_secret(path, text.as_bytes()).map_err(|source| CaError::File {
            path: path.display().to_string(),
            source,
        })
    }

    /// Puts a key of ours under the passphrase that was written without one. Where there is no passphrase, or no
    /// key, nothing is done.
    pub(super) fn seal(&self, path: &Path) -> Result<(), CaError> {
        if self.file.is_none() {
            return Ok(());
        }
        let text = match std::fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(source) => {
                return Err(CaError::File {
                    path: path.display().to_string(),
                    source,
                });
            }
        };
        if text.contains(ENCRYPTED) {
            return Ok(());
        }
        let damaged = |why| CaError::Damaged {
            path: path.display().to_string(),
            why,
        };
        self.write(path, &self.open(path, &text, damaged)?)?;
        tracing::info!(key = %path.display(), "is under the passphrase from now on");
        Ok(())
    }
}
