//! A file that can be written without being changed: a damaged store is looked at through it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

const PAGE: u64 = 4096;

/// Reads come from the file, writes stay in memory.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    length: u64,
    /// Bytes of the file that still count; beyond them are zeros.
    from_file: u64,
    pages: HashMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self {
            file,
            state: Mutex::new(State {
                length,
                from_file: length,
                pages: HashMap::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `out` from the file and zeros.
    fn read_below(&self, from_file: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let available = from_file.saturating_sub(offset).min(out.len() as u64) as usize;
        self.file.read_exact_at(&mut out[..available], offset)?;
        out[available..].fill(0);
        Ok(())
    }
}

/// The pages that a range touches: page number, offset in the page, range in the buffer.
fn pieces(
    offset: u64,
    length: usize,
) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < length).then(|| {
            let at = offset + done as u64;
            let inside = (at % PAGE) as usize;
            let size = (PAGE as usize - inside).min(length - done);
            let piece = (at / PAGE, inside, done..done + size);
            done += size;
            piece
        })
    })
}

impl redb::StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if offset + out.len() as u64 > state.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, inside, range) in pieces(offset, out.len()) {
            let out = &mut out[range];
            match state.pages.get(&number) {
                Some(page) => out.copy_from_slice(&page[inside..inside + out.len()]),
                None => self.read_below(state.from_file, number * PAGE + inside as u64, out)?,
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        if length < state.length {
            state.from_file = state.from_file.min(length);
            state.pages.retain(|number, _| number * PAGE < length);
            let (last, inside) = (length / PAGE, (length % PAGE) as usize);
            if let Some(page) = state.pages.get_mut(&last) {
                page[inside..].fill(0);
            }
        }
        state.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.length = state.length.max(offset + data.len() as u64);
        for (number, inside, range) in pieces(offset, data.len()) {
            if !state.pages.contains_key(&number) {
                let mut page = vec![0; PAGE as usize];
                self.read_below(state.from_file, number * PAGE, &mut page)?;
                state.pages.insert(number, page);
            }
            if let Some(page) = state.pages.get_mut(&number) {
                page[inside..inside + range.len()].copy_from_slice(&data[range]);
            }
        }
        Ok(())
    }
}
