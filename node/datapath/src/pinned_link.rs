//! Takes a pinned link off its hook at once.
//!
//! To remove the pin is not enough: the kernel takes the program off when the last reference is gone, which for a
//! pin is some time after its file went (an RCU grace period and a work queue later). Until then packets meet the
//! program, and another cannot be attached in its place.

use nix::libc;
use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// Commands of bpf(2) (linux/bpf.h).
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_DETACH: libc::c_int = 34;

/// The part of `union bpf_attr` that `BPF_OBJ_GET` reads.
#[repr(C)]
struct ObjectAttribute {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that `BPF_LINK_DETACH` reads.
#[repr(C)]
struct LinkAttribute {
    fd: u32,
}

#[allow(unsafe_code)]
fn bpf<T>(command: libc::c_int, attribute: &T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads as many bytes as the attribute has, and writes none for these two commands.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attribute),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(result).map_err(io::Error::other)
}

/// A pinned link, open; `None` without a pin.
#[allow(unsafe_code)]
fn open(pin: &Path) -> io::Result<Option<OwnedFd>> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attribute = ObjectAttribute {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    match bpf(BPF_OBJ_GET, &attribute) {
        // SAFETY: the kernel just made the descriptor for us.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn take_off(link: &OwnedFd) -> io::Result<()> {
    let attribute = LinkAttribute {
        fd: u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?,
    };
    bpf(BPF_LINK_DETACH, &attribute).map(drop)
}

/// Takes the program of a pinned link off its hook, then removes the pin; without a pin nothing is to be done.
///
/// # Errors
///
/// When the pin is no link, or the kernel refuses.
pub(crate) fn detach(pin: &Path) -> io::Result<()> {
    let Some(link) = open(pin)? else {
        return Ok(());
    };
    take_off(&link)?;
    std::fs::remove_file(pin)
}

/// Moves a pin to the place of another, whose program then comes off its hook.
///
/// # Errors
///
/// When the pin cannot be moved; the other's program then stays.
pub(crate) fn replace(pin: &Path, other: &Path) -> io::Result<()> {
    let former = open(other).ok().flatten();
    std::fs::rename(pin, other)?;
    // Without a pin it comes off in any case, only later.
    if let Some(former) = former {
        let _ = take_off(&former);
    }
    Ok(())
}
