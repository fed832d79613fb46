// SPDX-License-Identifier: GPL-2.0

//! The migration state of a device, which another device loads to continue its work.
//!
//! | Bytes | What                                                   |
//! |-------|--------------------------------------------------------|
//! | 256   | configuration space                                    |
//! | 36    | the registers `ADDRESS` to `PEER_OFFSET`               |
//! | 4     | `STATUS`                                               |
//! | 4     | `COMPLETED`                                            |
//! | 4     | the pending command                                    |
//! | rest  | the memory                                             |
//!
//! Registers are little endian. `PASID` and `LINK` belong to the device and are not migrated. The
//! new device runs a pending command. The peer is still the device with the UUID in `PEER`.

use kernel::prelude::*;

use vfio_mdev::{
    Activity,
    Instance,
    Migrate, //
};

use crate::{
    config,
    engine::{
        Command,
        Engine,
        Status, //
    },
    registers::{
        self,
        Operands, //
    },
    Vgpu, //
};

const CONFIG_END: usize = config::SIZE as usize;
const REGISTERS: usize = Operands::COUNT + 3;
const REGISTERS_END: usize = CONFIG_END + 4 * REGISTERS;

impl Migrate for Vgpu {
    const VERSION: u32 = 1;

    fn state_size(&self) -> usize {
        REGISTERS_END + self.memory.len()
    }

    fn set_activity(this: &Instance<Self>, activity: Activity) {
        Engine::set_activity(this, activity);
    }

    fn save(this: &Instance<Self>, state: &mut [u8]) -> Result {
        this.config.save(&mut state[..CONFIG_END]);
        let engine = this.engine.lock();
        let [status, completed] = [engine.status as u32, engine.completed];
        let last = [status, completed, registers::pending(engine.pending)];
        let words = [&engine.operands.0[..], &last].into_iter().flatten();
        for (to, word) in state[CONFIG_END..REGISTERS_END]
            .chunks_exact_mut(4)
            .zip(words)
        {
            to.copy_from_slice(&word.to_le_bytes());
        }
        this.memory.read(0, &mut state[REGISTERS_END..])
    }

    fn load(this: &Instance<Self>, state: &[u8]) -> Result {
        let config = this.config.check(&state[..CONFIG_END])?;
        let mut words = [0; REGISTERS];
        for (word, from) in words.iter_mut().zip(state[CONFIG_END..].chunks_exact(4)) {
            *word = u32::from_le_bytes([from[0], from[1], from[2], from[3]]);
        }
        let [operands @ .., status, completed, command] = words;
        let status = Status::from_register(status).ok_or(EINVAL)?;
        this.memory.write(0, &state[REGISTERS_END..])?;
        this.config.load(config);
        let mut engine = this.engine.lock();
        engine.operands = Operands(operands);
        engine.status = status;
        engine.completed = completed;
        engine.pending = Command::from_register(command);
        Ok(())
    }
}
