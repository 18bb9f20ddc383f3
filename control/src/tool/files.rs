//! Files and folders of rules, as the user names them.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::rules::{FILE_BYTES_MAX, Object, RuleErrors, parse};

/// Why rules cannot be had.
#[derive(Debug)]
pub enum FilesError {
    /// A file could not be read.
    Unreadable(PathBuf, std::io::Error),
    /// Files that say something wrong, in order.
    Wrong(Vec<RuleErrors>),
    /// An object in two files: the object, the first place, the second.
    Twice(String, String, String),
    /// A folder without a single file of rules.
    Empty(PathBuf),
    /// A file, or all files of a folder, without a single object.
    NoObject(PathBuf),
}

impl FilesError {
    /// 2 where the input is wrong, 1 where it could not be read.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.is_input() { 2 } else { 1 })
    }

    /// Whether the input is wrong, as opposed to a disk that fails.
    #[must_use]
    pub fn is_input(&self) -> bool {
        match self {
            Self::Unreadable(_, error) => is_input(error),
            _ => true,
        }
    }
}

/// Whether a file that cannot be read was named wrongly, or is no text.
#[must_use]
pub fn is_input(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, IsADirectory, NotFound};
    matches!(error.kind(), NotFound | InvalidData | IsADirectory)
}

impl std::fmt::Display for FilesError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(f, "{}: cannot be read: {error}", path.display())
            }
            Self::Wrong(all) => {
                let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join("\n"))
            }
            Self::Twice(object, first, second) => {
                write!(
                    f,
                    "{second}: {object} is given twice, first at {first}; keep one of them"
                )
            }
            Self::NoObject(path) => write!(
                f,
                "{}: holds no object; an object begins with apiVersion and kind",
                path.display()
            ),
            Self::Empty(path) => write!(
                f,
                "{}: no file of rules is in this folder; the names end in .yaml or .yml",
                path.display()
            ),
        }
    }
}

impl std::error::Error for FilesError {}

/// The texts of all files: folders are walked in order of names, `-` is standard input.
///
/// # Errors
/// [`FilesError`].
pub fn read_texts(paths: &[PathBuf]) -> Result<Vec<(String, String)>, FilesError> {
    let mut texts = Vec::new();
    for path in paths {
        let before = texts.len();
        if path.as_os_str() == "-" {
            texts.push(("-".to_owned(), read(path, std::io::stdin().lock())?));
        } else {
            walk(path, &mut texts)?;
            if texts.len() == before {
                return Err(FilesError::Empty(path.clone()));
            }
        }
        let is_empty = |(file, text): &(String, String)| {
            parse(file, text).is_ok_and(|objects| objects.is_empty())
        };
        if texts.iter().skip(before).all(is_empty) {
            return Err(FilesError::NoObject(path.clone()));
        }
    }
    Ok(texts)
}

fn walk(path: &Path, texts: &mut Vec<(String, String)>) -> Result<(), FilesError> {
    let unreadable = |error| FilesError::Unreadable(path.to_owned(), error);
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        texts.push((path.display().to_string(), read(path, file)?));
        return Ok(());
    }
    let entries = std::fs::read_dir(path).map_err(unreadable)?;
    let mut inside = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    inside.sort();
    for entry in inside {
        let rules = entry
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml");
        if rules || entry.is_dir() {
            walk(&entry, texts)?;
        }
    }
    Ok(())
}

/// Reads at most one byte more than a file of rules may have; the parser refuses that.
fn read(path: &Path, from: impl Read) -> Result<String, FilesError> {
    let mut text = String::new();
    let most = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX) + 1;
    from.take(most)
        .read_to_string(&mut text)
        .map_err(|error| FilesError::Unreadable(path.to_owned(), error))?;
    Ok(text)
}

/// All objects of all files.
///
/// # Errors
/// [`FilesError`], with the faults of all files.
pub fn read_objects(paths: &[PathBuf]) -> Result<Vec<Object>, FilesError> {
    let mut objects: Vec<Object> = Vec::new();
    let mut wrong = Vec::new();
    for (file, text) in read_texts(paths)? {
        match parse(&file, &text) {
            Ok(more) => objects.extend(more),
            Err(errors) => wrong.push(errors),
        }
    }
    if !wrong.is_empty() {
        return Err(FilesError::Wrong(wrong));
    }
    let mut first_at = std::collections::BTreeMap::new();
    for object in &objects {
        let here = format!("{}:{}", object.file, object.first_line);
        if let Some(first) = first_at.insert(&object.key, here.clone()) {
            return Err(FilesError::Twice(object.key.to_string(), first, here));
        }
    }
    Ok(objects)
}
