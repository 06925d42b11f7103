//! Subprograms that the verifier checks once, by themselves, whoever calls them.
//!
//! The verifier follows a static function anew from each call and with each state in which it is called. A global
//! one (exported, with the C calling convention) it takes by its signature: plain integers, the context, or pointers
//! to structures, which may be null as far as it knows; it returns an integer. So the stages that every hook has are
//! such functions, each behind a safe one that turns the integer back into a result.

use heddle_abi::DropReason;

/// A drop as a subprogram returns it: below zero.
#[inline(always)]
pub fn code(reason: DropReason) -> i32 {
    -i32::from(reason as u8)
}

/// The way back.
#[inline(always)]
pub fn reason(code: i32) -> DropReason {
    // SAFETY: subprograms return below zero what `code` made of a reason.
    unsafe { core::mem::transmute::<u8, DropReason>((-code) as u8) }
}
