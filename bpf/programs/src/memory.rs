//! Memory in words: what the compiler would call `memset` for goes byte by byte.

/// Sets a value of plain integers, for which zero is a value, to zero.
#[inline(always)]
pub fn clear<T>(place: &mut T) {
    // SAFETY: the place is the caller's.
    unsafe { wipe(place) }
}

/// # Safety
///
/// The place is valid for writes.
#[inline(always)]
unsafe fn wipe<T>(place: *mut T) {
    const { assert!(size_of::<T>() % size_of::<u32>() == 0 && align_of::<T>() >= 4) };
    // SAFETY: the words are aligned and inside it. Volatile: else this becomes a call.
    unsafe {
        if align_of::<T>() >= 8 {
            for word in 0..size_of::<T>() / size_of::<u64>() {
                place.cast::<u64>().add(word).write_volatile(0);
            }
        } else {
            for word in 0..size_of::<T>() / size_of::<u32>() {
                place.cast::<u32>().add(word).write_volatile(0);
            }
        }
    }
}

/// A value of plain integers that is zero.
#[inline(always)]
pub fn zeroed<T: Copy>() -> T {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the place is this function's; then every word of it was written, and zero is a value.
    unsafe {
        wipe(value.as_mut_ptr());
        value.assume_init()
    }
}
