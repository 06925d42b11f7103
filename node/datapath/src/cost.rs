//! What the programs cost: their size, and the time of a run.

use crate::{DatapathError, KernelDatapath, PROGRAMS, attach, maps::lock, object::chain};
use aya::programs::SchedClassifier;
use std::time::Duration;

/// Size of a loaded program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgramSize {
    /// Its name.
    pub name: &'static str,
    /// Instructions as the kernel holds them, subprograms included; 0 where the kernel does not tell.
    pub instructions: u32,
    /// Instructions that the verifier followed on all paths together; 0 where the kernel does not tell.
    pub verified: u32,
}

/// Bytes of an instruction (linux/bpf.h, `struct bpf_insn`).
const INSTRUCTION: u32 = 8;

impl KernelDatapath {
    /// The sizes of the programs.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell about a program.
    pub fn program_sizes(&self) -> Result<Vec<ProgramSize>, DatapathError> {
        let mut object = lock(&self.object);
        PROGRAMS
            .into_iter()
            .map(|name| {
                let failed = |reason: String| DatapathError::Failed {
                    doing: "ask about program",
                    object: name.to_owned(),
                    reason,
                };
                let program = object
                    .program_mut(name)
                    .ok_or_else(|| failed("it is not in the object".to_owned()))?;
                let program: &mut SchedClassifier =
                    program.try_into().map_err(|error| failed(chain(&error)))?;
                let info = program.info().map_err(|error| failed(chain(&error)))?;
                Ok(ProgramSize {
                    name,
                    instructions: info.size_translated().unwrap_or(0) / INSTRUCTION,
                    verified: info.verified_instruction_count().unwrap_or(0),
                })
            })
            .collect()
    }

    /// How long a run of a program on a frame takes: the mean of `repeat` runs one after the other, each on what the
    /// one before left of the frame. As [`Self::run_program`] otherwise; gives the last run's return code, too.
    ///
    /// # Errors
    ///
    /// As [`Self::run_program`].
    pub fn time_program(
        &self,
        program: &str,
        frame: &[u8],
        ifindex: u32,
        repeat: u32,
    ) -> Result<(u32, Duration), DatapathError> {
        let run = attach::run(&mut lock(&self.object), program, frame, ifindex, repeat)?;
        Ok((run.code, run.duration))
    }
}
