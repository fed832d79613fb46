// SPDX-License-Identifier: GPL-2.0

//! Encoding and decoding of entries.

use core::num::NonZero;

use super::{
    is_block_size,
    Access,
    Aperture,
    Attributes,
    Block,
    Domain,
    Invalid,
    OperationMapping,
    Ppaace,
    Spaace,
    StashId,
    Windows,
    Words,
    MIN_SIZE,
    WORDS, //
};

/// The indices of an entry's words.
pub(crate) mod word {
    /// Address of the aperture, bits 63:32.
    pub(crate) const BASE_HIGH: usize = 0;
    /// The word that decides whether the entry is used: valid bit, access, and aperture or LIODN.
    pub(crate) const STATE: usize = 1;
    /// Attributes of the domain.
    pub(crate) const DOMAIN: usize = 2;
    /// Translation modes, the number of windows, and the stash.
    pub(crate) const TRANSLATION: usize = 3;
    /// Address of the block, bits 63:32.
    pub(crate) const BLOCK_HIGH: usize = 4;
    /// Address of the block, bits 31:12, and its size.
    pub(crate) const BLOCK_LOW: usize = 5;
    /// Index of the first secondary entry.
    pub(crate) const FIRST_SPAACE: usize = 6;
    /// Operation mapping.
    pub(crate) const OPERATION: usize = 7;
}

/// A bit field of one word.
#[derive(Clone, Copy)]
struct Field {
    word: usize,
    shift: u32,
    bits: u32,
}

impl Field {
    const fn new(word: usize, high: u32, low: u32) -> Self {
        Self {
            word,
            shift: low,
            bits: high - low + 1,
        }
    }

    const fn mask(self) -> u32 {
        (u32::MAX >> (32 - self.bits)) << self.shift
    }

    const fn get(self, words: &Words) -> u32 {
        (words[self.word] & self.mask()) >> self.shift
    }

    fn set(self, words: &mut Words, value: u32) {
        words[self.word] = words[self.word] & !self.mask() | value << self.shift & self.mask();
    }
}

const WBAH: Field = Field::new(word::BASE_HIGH, 31, 0);
const WBAL: Field = Field::new(word::STATE, 31, 12);
const LIODN: Field = Field::new(word::STATE, 31, 16);
const WSE: Field = Field::new(word::STATE, 11, 6);
const MW: Field = Field::new(word::STATE, 5, 5);
const AP: Field = Field::new(word::STATE, 4, 3);
const DD: Field = Field::new(word::STATE, 2, 2);
const PT: Field = Field::new(word::STATE, 1, 1);
const V: Field = Field::new(word::STATE, 0, 0);
const DID: Field = Field::new(word::DOMAIN, 31, 24);
const PID: Field = Field::new(word::DOMAIN, 23, 16);
const SNPID: Field = Field::new(word::DOMAIN, 15, 8);
const CR: Field = Field::new(word::DOMAIN, 7, 7);
const CID: Field = Field::new(word::TRANSLATION, 23, 16);
const WCE: Field = Field::new(word::TRANSLATION, 7, 4);
const ATM: Field = Field::new(word::TRANSLATION, 3, 2);
const OTM: Field = Field::new(word::TRANSLATION, 1, 0);
const TWBAH: Field = Field::new(word::BLOCK_HIGH, 31, 0);
const TWBAL: Field = Field::new(word::BLOCK_LOW, 31, 12);
const SWSE: Field = Field::new(word::BLOCK_LOW, 11, 6);
const FSPI: Field = Field::new(word::FIRST_SPAACE, 31, 0);
const OPERATION: Field = Field::new(word::OPERATION, 31, 0);

/// The fields of both kinds of entries, without those of [`Domain`].
const COMMON: [Field; 10] = [AP, DD, PT, V, CID, ATM, OTM, TWBAH, TWBAL, SWSE];

/// The fields that only primary entries have.
const PRIMARY: [Field; 6] = [WBAH, WBAL, WSE, MW, WCE, FSPI];

/// The fields that only secondary entries have.
const SECONDARY: [Field; 1] = [LIODN];

/// No translation, and translation by windows. The other two modes use pages.
const ATM_NONE: u32 = 0;
const ATM_WINDOW: u32 = 1;

/// The largest size code, that of 2^63 bytes.
const MAX_SIZE_CODE: u32 = 62;

/// Returns the code of a size. Code 0 means that no size is set.
fn size_code(size: u64) -> u32 {
    size.checked_ilog2()
        .map_or(0, |log2| log2.saturating_sub(1))
}

/// Returns the size of a code, or `None` for code 0, sizes below a page and sizes above 2^63 bytes.
fn size_of(code: u32) -> Option<u64> {
    (code <= MAX_SIZE_CODE)
        .then(|| 2 << code)
        .filter(|size| *size >= MIN_SIZE)
}

/// Splits an address into its high and low part.
fn split(address: u64) -> (u32, u32) {
    ((address >> 32) as u32, (address as u32) >> 12)
}

/// Returns the address with this high and low part.
fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low) << 12
}

/// Returns the [`word::STATE`] with another access.
pub(crate) fn with_access(state: u32, access: Access) -> u32 {
    state & !AP.mask() | (access as u32) << AP.shift
}

/// Returns the [`word::TRANSLATION`] with another stash.
pub(crate) fn with_stash(translation: u32, stash: Option<StashId>) -> u32 {
    translation & !CID.mask() | stash.map_or(0, |id| u32::from(id.0.get())) << CID.shift
}

impl Ppaace {
    /// The entry of a LIODN that has no aperture and no access.
    pub(crate) const BLOCKED: Words = [0; WORDS];

    /// Checks that the hardware accepts the entry.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        if self.valid && self.aperture.is_none() {
            return Err(Invalid::Empty);
        }
        self.attributes.check()?;
        let window = match self.aperture {
            Some(aperture) => aperture.window_size(self.windows)?,
            None if self.windows != Windows::ONE => return Err(Invalid::Windows),
            None => 0,
        };
        match self.windows {
            Windows::ONE if self.first_spaace != 0 => Err(Invalid::Windows),
            Windows::ONE if self.block.size != 0 => Err(Invalid::Block),
            Windows::ONE => self.block.check_address(window),
            _ => self.block.check(window),
        }
    }

    /// Returns the entry as words.
    pub(crate) fn encode(&self) -> Result<Words, Invalid> {
        self.check()?;
        let mut words = [0; WORDS];
        if let Some(aperture) = self.aperture {
            let (high, low) = split(aperture.start());
            WBAH.set(&mut words, high);
            WBAL.set(&mut words, low);
            WSE.set(&mut words, size_code(aperture.size()));
        }
        if self.windows != Windows::ONE {
            MW.set(&mut words, 1);
            WCE.set(&mut words, self.windows.log2() - 1);
        }
        V.set(&mut words, self.valid.into());
        FSPI.set(&mut words, self.first_spaace);
        self.block.encode(&mut words);
        self.attributes.encode(&mut words);
        Ok(words)
    }

    /// Returns the entry that `words` encode.
    pub(crate) fn decode(words: &Words) -> Result<Self, Invalid> {
        check_reserved(words, &PRIMARY)?;
        if PT.get(words) != 0 {
            return Err(Invalid::Kind);
        }
        let start = join(WBAH.get(words), WBAL.get(words));
        let aperture = match WSE.get(words) {
            0 if start != 0 => return Err(Invalid::Aperture),
            0 => None,
            code => Some(Aperture::of_size(
                start,
                size_of(code).ok_or(Invalid::Aperture)?,
            )?),
        };
        let windows = match (MW.get(words), WCE.get(words)) {
            (0, 0) => Windows::ONE,
            (0, _) => return Err(Invalid::Windows),
            (_, code) => Windows::new(2 << code)?,
        };
        let entry = Self {
            valid: V.get(words) != 0,
            aperture,
            windows,
            first_spaace: FSPI.get(words),
            block: Block::decode(words)?,
            attributes: Attributes::decode(words)?,
        };
        entry.check()?;
        Ok(entry)
    }
}

impl Spaace {
    /// Checks that the hardware accepts the entry, for a window of `window` bytes.
    pub(crate) fn check(&self, window: u64) -> Result<(), Invalid> {
        if self.valid && self.block.size == 0 {
            return Err(Invalid::Empty);
        }
        self.attributes.check()?;
        self.block.check(window)
    }

    /// Returns the entry as words.
    pub(crate) fn encode(&self, window: u64) -> Result<Words, Invalid> {
        self.check(window)?;
        let mut words = [0; WORDS];
        LIODN.set(&mut words, self.liodn.into());
        PT.set(&mut words, 1);
        V.set(&mut words, self.valid.into());
        self.block.encode(&mut words);
        self.attributes.encode(&mut words);
        Ok(words)
    }

    /// Returns the entry that `words` encode, for a window of `window` bytes.
    pub(crate) fn decode(words: &Words, window: u64) -> Result<Self, Invalid> {
        check_reserved(words, &SECONDARY)?;
        if PT.get(words) != 1 {
            return Err(Invalid::Kind);
        }
        let entry = Self {
            valid: V.get(words) != 0,
            liodn: LIODN.get(words) as u16,
            block: Block::decode(words)?,
            attributes: Attributes::decode(words)?,
        };
        entry.check(window)?;
        Ok(entry)
    }
}

impl Block {
    /// Checks that a window of `window` bytes can lead to this block.
    pub(crate) fn check(&self, window: u64) -> Result<(), Invalid> {
        if self.size == 0 {
            // The block was never set, so it must not lead anywhere.
            return if *self == Self::default() {
                Ok(())
            } else {
                Err(Invalid::Block)
            };
        }
        if !is_block_size(self.size) || self.size > window {
            return Err(Invalid::Block);
        }
        self.check_address(self.size)
    }

    /// Checks the address of a block of `size` bytes. `size` is a power of two or 0.
    fn check_address(&self, size: u64) -> Result<(), Invalid> {
        let good = if self.translated && size != 0 {
            self.phys & (size - 1) == 0
        } else {
            self.phys == 0
        };
        good.then_some(()).ok_or(Invalid::Block)
    }

    fn encode(&self, words: &mut Words) {
        let (high, low) = split(self.phys);
        TWBAH.set(words, high);
        TWBAL.set(words, low);
        SWSE.set(words, size_code(self.size));
        AP.set(words, self.access as u32);
        ATM.set(
            words,
            if self.translated {
                ATM_WINDOW
            } else {
                ATM_NONE
            },
        );
    }

    fn decode(words: &Words) -> Result<Self, Invalid> {
        Ok(Self {
            access: Access::from_bits(AP.get(words)),
            phys: join(TWBAH.get(words), TWBAL.get(words)),
            size: match SWSE.get(words) {
                0 => 0,
                code => size_of(code).ok_or(Invalid::Block)?,
            },
            translated: match ATM.get(words) {
                ATM_NONE => false,
                ATM_WINDOW => true,
                _ => return Err(Invalid::Translation),
            },
        })
    }
}

impl Attributes {
    fn check(&self) -> Result<(), Invalid> {
        match self.domain {
            Domain::Host { partition: 8.., .. } => Err(Invalid::Partition),
            _ => self.operation.check(),
        }
    }

    fn encode(&self, words: &mut Words) {
        match self.domain {
            Domain::Host {
                destination,
                partition,
                snoop,
                coherent,
            } => {
                DID.set(words, destination.into());
                PID.set(words, partition.into());
                SNPID.set(words, snoop.into());
                CR.set(words, coherent.into());
            }
            Domain::Io { destination } => {
                DD.set(words, 1);
                DID.set(words, destination.into());
            }
        }
        CID.set(words, self.stash.map_or(0, |id| id.0.get().into()));
        let (mode, operation) = self.operation.encode();
        OTM.set(words, mode);
        OPERATION.set(words, operation);
    }

    fn decode(words: &Words) -> Result<Self, Invalid> {
        let destination = DID.get(words) as u8;
        Ok(Self {
            domain: if DD.get(words) == 0 {
                Domain::Host {
                    destination,
                    partition: PID.get(words) as u8,
                    snoop: SNPID.get(words) as u8,
                    coherent: CR.get(words) != 0,
                }
            } else {
                Domain::Io { destination }
            },
            stash: NonZero::new(CID.get(words) as u8).map(StashId),
            operation: OperationMapping::decode(OTM.get(words), OPERATION.get(words))?,
        })
    }
}

/// Fails if a bit is set that belongs to none of the entry's fields.
fn check_reserved(words: &Words, own: &[Field]) -> Result<(), Invalid> {
    let domain: &[Field] = if DD.get(words) == 0 {
        &[DID, PID, SNPID, CR]
    } else {
        &[DID]
    };
    let mut known = [0; WORDS];
    // The decoder of the operation mapping checks this word.
    known[word::OPERATION] = OPERATION.mask();
    for field in COMMON.iter().chain(own).chain(domain) {
        known[field.word] |= field.mask();
    }
    if words
        .iter()
        .zip(known)
        .any(|(word, known)| word & !known != 0)
    {
        return Err(Invalid::Reserved);
    }
    Ok(())
}
