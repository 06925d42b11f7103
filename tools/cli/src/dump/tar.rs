//! The tar format (POSIX ustar), as far as a dump needs it: regular files, names of up to 255 bytes.

use std::io::{self, Read, Write};

/// Bytes of a header, and what contents are padded to.
const BLOCK: usize = 512;
/// Bytes of the fields `name` and `prefix`.
const NAME: usize = 100;
const PREFIX: usize = 155;
/// Largest size that the field `size` can hold.
const MAX_SIZE: u64 = 0o77_777_777_777;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    /// It cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is no tar archive, or a broken one.
    #[error("{0}")]
    Malformed(String),
}

fn malformed<T>(reason: impl Into<String>) -> Result<T, TarError> {
    Err(TarError::Malformed(reason.into()))
}

/// Writes a regular file, readable by its owner only.
pub(crate) fn append(
    to: &mut impl Write,
    name: &str,
    content: &[u8],
    modified: u64,
) -> Result<(), TarError> {
    let header = header(name, content.len() as u64, modified)?;
    to.write_all(&header)?;
    to.write_all(content)?;
    let rest = (BLOCK - content.len() % BLOCK) % BLOCK;
    to.write_all(&[0; BLOCK][..rest])?;
    Ok(())
}

/// Writes the end of an archive.
pub(crate) fn finish(to: &mut impl Write) -> Result<(), TarError> {
    to.write_all(&[0; 2 * BLOCK])?;
    Ok(())
}

fn header(name: &str, size: u64, modified: u64) -> Result<[u8; BLOCK], TarError> {
    let Some((prefix, short)) = split_name(name) else {
        return malformed(format!("{name:?} is too long a name"));
    };
    if size > MAX_SIZE {
        return malformed(format!("{name}: {size} bytes are too many"));
    }
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, short.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{:011o}\0", modified.min(MAX_SIZE)).as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(345, prefix.as_bytes());
    let sum = format!("{:06o}\0 ", checksum(&header));
    header[148..156].copy_from_slice(sum.as_bytes());
    Ok(header)
}

/// The sum of a header's bytes, those of the sum itself counted as blanks.
fn checksum(header: &[u8; BLOCK]) -> u32 {
    let bytes = header.iter().enumerate();
    bytes
        .map(|(at, byte)| match at {
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        })
        .sum()
}

/// A name as `prefix` and `name`, divided at a slash where it does not fit one field.
fn split_name(name: &str) -> Option<(&str, &str)> {
    if name.len() <= NAME {
        return Some(("", name));
    }
    let slashes = name.match_indices('/');
    slashes
        .map(|(at, _)| (&name[..at], &name[at + 1..]))
        .find(|(prefix, rest)| prefix.len() <= PREFIX && rest.len() <= NAME)
}

/// A file of an archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// A relative path, of plain parts only.
    pub(crate) name: String,
    /// Bytes of its content.
    pub(crate) size: u64,
}

/// Reads an archive, a file at a time.
pub(crate) struct Reader<R> {
    from: R,
    /// Padding behind the last content.
    padding: usize,
}

impl<R: Read> Reader<R> {
    /// Reads from here.
    pub(crate) const fn new(from: R) -> Self {
        Self { from, padding: 0 }
    }

    /// The next file's header; `None` at the end of the archive. Folders are passed over; what else is no regular
    /// file is refused.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        loop {
            let mut block = [0; BLOCK];
            self.fill(self.padding, &mut block)?;
            self.padding = 0;
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            if octal(&block[148..156]) != Some(u64::from(checksum(&block))) {
                return malformed("it is no tar archive, or a header of it is damaged");
            }
            let name = name_of(&block)?;
            let Some(size) = octal(&block[124..136]) else {
                return malformed(format!("{name:?}: its size is no number"));
            };
            match block[156] {
                b'0' | 0 => {
                    if !is_plain(&name) {
                        return malformed(format!("{name:?} is no name of a file inside a dump"));
                    }
                    return Ok(Some(Entry { name, size }));
                }
                b'5' if size == 0 => {}
                other => {
                    return malformed(format!(
                        "{name:?} is no regular file (type {:?})",
                        char::from(other)
                    ));
                }
            }
        }
    }

    /// The content of the file whose header was read last.
    pub(crate) fn content(&mut self, entry: &Entry) -> Result<Vec<u8>, TarError> {
        let mut content = Vec::new();
        // What is there, and not what the header promises, is what memory is taken for.
        (&mut self.from)
            .take(entry.size)
            .read_to_end(&mut content)?;
        if (content.len() as u64) < entry.size {
            return malformed(format!("it ends within {}", entry.name));
        }
        self.padding = (BLOCK - content.len() % BLOCK) % BLOCK;
        Ok(content)
    }

    fn fill(&mut self, skip: usize, block: &mut [u8; BLOCK]) -> Result<(), TarError> {
        let mut unread = [0; BLOCK];
        let mut read = |into: &mut [u8]| match self.from.read_exact(into) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                malformed("it is cut short: its end is missing")
            }
            other => other.map_err(TarError::Io),
        };
        read(&mut unread[..skip])?;
        read(block)
    }
}

/// A number as headers hold it: octal digits that end with a blank or NUL.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches(['\0', ' ']);
    u64::from_str_radix(digits, 8).ok().filter(|_| {
        // No sign, which the conversion would take.
        digits.bytes().all(|digit| digit.is_ascii_digit())
    })
}

fn name_of(header: &[u8; BLOCK]) -> Result<String, TarError> {
    let field = |at: usize, length: usize| {
        let bytes = &header[at..at + length];
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(length);
        std::str::from_utf8(&bytes[..end])
            .map_err(|_| TarError::Malformed("a file's name is no UTF-8".to_owned()))
    };
    let name = field(0, NAME)?;
    // Other formats have other things where ustar has the prefix.
    let prefix = match &header[257..263] {
        b"ustar\0" => field(345, PREFIX)?,
        _ => "",
    };
    Ok(match prefix {
        "" => name.to_owned(),
        prefix => format!("{prefix}/{name}"),
    })
}

/// A relative path without `.`, `..`, empty parts or control characters.
fn is_plain(name: &str) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "." | "..");
    name.split('/').all(is_part) && !name.chars().any(|c| c.is_control() || c == '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, TarError> {
        let mut reader = Reader::new(bytes);
        let mut files = Vec::new();
        while let Some(entry) = reader.next()? {
            let content = reader.content(&entry)?;
            files.push((entry.name, content));
        }
        Ok(files)
    }

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, content) in files {
            append(&mut bytes, name, content, 1_700_000_000).unwrap();
        }
        finish(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let long = format!("nodes/{}/status.json", "n".repeat(120));
        let block = [7; BLOCK];
        let files: [(&str, &[u8]); 4] = [
            ("manifest.json", b"{}"),
            ("empty", b""),
            ("whole-block", &block),
            (&long, b"text"),
        ];
        let bytes = archive(&files);
        assert_eq!(bytes.len() % BLOCK, 0);
        let files = files.map(|(name, content)| (name.to_owned(), content.to_vec()));
        assert_eq!(read(&bytes).unwrap(), files);
        let too_long = format!("a/{}", "n".repeat(200));
        assert!(append(&mut Vec::new(), &too_long, b"", 0).is_err());
    }

    #[test]
    fn an_archive_that_is_cut_or_damaged_is_refused() {
        let bytes = archive(&[("a", b"some content"), ("b", b"more")]);
        for end in [0, 1, 100, BLOCK, BLOCK + 5, 2 * BLOCK, 4 * BLOCK] {
            let error = read(&bytes[..end]).unwrap_err().to_string();
            assert!(error.contains("it "), "{end}: {error}");
        }
        let mut damaged = bytes.clone();
        damaged[0] = b'x';
        assert!(read(&damaged).is_err());
        assert!(read(&[b'{'; 4096]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..4096)) {
            let _ = read(&bytes);
        }

        #[test]
        fn a_changed_byte_is_an_error_or_another_plain_archive(at in 0_usize..2560, with: u8) {
            let mut bytes = archive(&[("a/b", b"some content"), ("c", b"more")]);
            bytes[at] = with;
            for (name, _) in read(&bytes).into_iter().flatten() {
                proptest::prop_assert!(is_plain(&name));
            }
        }

        #[test]
        fn names_and_contents_come_back(
            name in "[a-z0-9][a-z0-9.-]{0,60}(/[a-z0-9][a-z0-9.-]{0,60}){0,2}",
            content in proptest::collection::vec(proptest::num::u8::ANY, 0..1500),
        ) {
            let files = read(&archive(&[(&name, &content)])).unwrap();
            proptest::prop_assert_eq!(files, vec![(name, content)]);
        }
    }

    /// The first header changed, its sum made right again.
    fn forged(at: usize, with: &[u8]) -> Vec<u8> {
        let mut bytes = archive(&[("name", b"content")]);
        bytes[at..at + with.len()].copy_from_slice(with);
        let mut header = [0; BLOCK];
        header.copy_from_slice(&bytes[..BLOCK]);
        let sum = format!("{:06o}\0 ", checksum(&header));
        bytes[148..156].copy_from_slice(sum.as_bytes());
        bytes
    }

    #[test]
    fn a_hostile_header_is_refused_and_takes_no_memory() {
        for (at, with, expected) in [
            (0, &b"../../etc/passwd\0"[..], "no name of a file"),
            (0, b"/etc/passwd\0", "no name of a file"),
            (0, b"a//b\0", "no name of a file"),
            (0, b"a/./b\0", "no name of a file"),
            (0, b"a\nb\0", "no name of a file"),
            (0, b"\0", "no name of a file"),
            (0, b"\xff\0", "no UTF-8"),
            (345, b"..\0", "no name of a file"),
            (124, b"77777777777\0", "it ends within name"),
            (124, b"-0000000001\0", "its size is no number"),
            (
                124,
                b"\x80\0\0\0\0\0\0\0\0\0\0\x01",
                "its size is no number",
            ),
            (156, b"2", "no regular file"),
            (156, b"1", "no regular file"),
            (156, b"x", "no regular file"),
            (156, b"3", "no regular file"),
        ] {
            let error = read(&forged(at, with)).unwrap_err().to_string();
            assert!(error.contains(expected), "{with:?}: {error}");
        }
        assert_eq!(read(&forged(0, b"fine\0")).unwrap().len(), 1);
    }
}
