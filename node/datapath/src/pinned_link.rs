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

/// Takes the program of a pinned link off its hook, then removes the pin; without a pin nothing is to be done.
///
/// # Errors
///
/// When the pin is no link, or the kernel refuses.
#[allow(unsafe_code)]
pub(crate) fn detach(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attribute = ObjectAttribute {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    let fd = match bpf(BPF_OBJ_GET, &attribute) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // SAFETY: the kernel just made the descriptor for us.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    let attribute = LinkAttribute {
        fd: u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?,
    };
    bpf(BPF_LINK_DETACH, &attribute)?;
    std::fs::remove_file(pin)
}
