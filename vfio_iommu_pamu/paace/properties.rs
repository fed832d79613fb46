// SPDX-License-Identifier: GPL-2.0

//! Tests of the encoding of all fields: encoding and decoding are inverse, and invalid combinations
//! are refused.

use kernel::prelude::*;

#[kunit_tests(vfio_pamu_paace)]
mod tests {
    use core::num::NonZero;

    use kernel_ext::testing::Random;

    use super::*;

    use crate::paace::{
        operation_mapping::{
            Incoming,
            Mapped,
            Outgoing, //
        },
        *,
    };

    /// The number of entries that each property is tested with.
    const TRIES: usize = 3000;

    fn operation(random: &mut Random) -> OperationMapping {
        let mut mapped = || Mapped(random.pick(Incoming::ALL), random.pick(Outgoing::ALL));
        let (a, b) = (mapped(), mapped());
        // Two zero bytes are not a second pair, and don't encode an operation.
        match random.below(4) {
            0 => OperationMapping::None,
            1 => OperationMapping::Immediate(a, None),
            2 if a.0 != b.0 => OperationMapping::Immediate(a, Some(b)),
            _ => OperationMapping::Indexed(random.below(16) as u16),
        }
    }

    fn attributes(random: &mut Random) -> Attributes {
        Attributes {
            domain: if random.below(2) == 0 {
                Domain::Host {
                    destination: random.next_u64() as u8,
                    partition: random.below(8) as u8,
                    snoop: random.next_u64() as u8,
                    coherent: random.below(2) == 0,
                }
            } else {
                Domain::Io {
                    destination: random.next_u64() as u8,
                }
            },
            stash: NonZero::new(random.next_u64() as u8).map(StashId),
            operation: operation(random),
        }
    }

    /// Returns a block for a window of `1 << log2` bytes.
    fn block(random: &mut Random, log2: u64) -> Block {
        if random.below(4) == 0 {
            return Block::default();
        }
        let size = 1 << (12 + random.below(log2 - 11));
        let translated = random.below(4) != 0;
        Block {
            access: Access::from_bits(random.next_u64() as u32),
            phys: if translated {
                random.next_u64() & !(size - 1)
            } else {
                0
            },
            size,
            translated,
        }
    }

    fn ppaace(random: &mut Random) -> Result<Ppaace> {
        let log2 = 12 + random.below(52);
        let windows = Windows::new(1 << random.below((log2 - 11).min(17)))?;
        let aperture = Aperture::of_size(random.next_u64() >> log2 << log2, 1 << log2)?;
        let mut block = block(random, log2 - u64::from(windows.count().ilog2()));
        if windows == Windows::ONE {
            block.phys = if block.translated {
                block.phys >> log2 << log2
            } else {
                0
            };
            block.size = 0;
        }
        Ok(Ppaace {
            valid: random.below(2) == 0,
            aperture: Some(aperture),
            windows,
            first_spaace: match windows {
                Windows::ONE => 0,
                _ => random.next_u64() as u32,
            },
            block,
            attributes: attributes(random),
        })
    }

    /// Returns the base-2 logarithm of a window's size, and an entry that fits it.
    fn spaace(random: &mut Random) -> (u64, Spaace) {
        let log2 = 12 + random.below(52);
        let block = block(random, log2);
        let entry = Spaace {
            valid: block.size != 0 && random.below(2) == 0,
            liodn: random.next_u64() as u16,
            block,
            attributes: attributes(random),
        };
        (log2, entry)
    }

    #[test]
    fn primary_entries_round_trip() -> Result {
        let mut random = Random::new(11);
        for _ in 0..TRIES {
            let entry = ppaace(&mut random)?;
            let words = entry.encode()?;
            assert_eq!(Ppaace::decode(&words), Ok(entry));
            assert!(Spaace::decode(&words, MIN_SIZE).is_err());
        }
        Ok(())
    }

    #[test]
    fn secondary_entries_round_trip() -> Result {
        let mut random = Random::new(12);
        for _ in 0..TRIES {
            let (log2, entry) = spaace(&mut random);
            let words = entry.encode(1 << log2)?;
            assert_eq!(Spaace::decode(&words, 1 << log2), Ok(entry));
            assert!(Ppaace::decode(&words).is_err());
        }
        Ok(())
    }

    /// Flips single bits of valid entries. The result is either invalid, or it decodes to a
    /// different entry that encodes to exactly these words.
    #[test]
    fn each_bit_is_decoded_or_rejected() -> Result {
        let mut random = Random::new(13);
        let mut refused = 0;
        for _ in 0..TRIES / 10 {
            let entry = ppaace(&mut random)?;
            let good = entry.encode()?;
            for bit in 0..WORDS * 32 {
                let mut words = good;
                words[bit / 32] ^= 1 << (bit % 32);
                match Ppaace::decode(&words) {
                    Ok(other) => {
                        assert!(other != entry);
                        assert_eq!(other.encode(), Ok(words));
                    }
                    Err(_) => refused += 1,
                }
            }
            let (log2, entry) = spaace(&mut random);
            let good = entry.encode(1 << log2)?;
            for bit in 0..WORDS * 32 {
                let mut words = good;
                words[bit / 32] ^= 1 << (bit % 32);
                match Spaace::decode(&words, 1 << log2) {
                    Ok(other) => {
                        assert!(other != entry);
                        assert_eq!(other.encode(1 << log2), Ok(words));
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > TRIES);
        Ok(())
    }

    #[test]
    fn decoded_words_encode_to_themselves() {
        let mut random = Random::new(14);
        let mut decoded = 0;
        for _ in 0..10 * TRIES {
            // Restrict the random bits to fields; otherwise almost no words would be an entry.
            let mut words: Words = [0; WORDS];
            let domain = random.pick(&[0xff07_ff80, 0xff00_0000]);
            words[word::STATE] = random.next_u64() as u32 & 0xf000_0fff;
            words[word::DOMAIN] = random.next_u64() as u32 & domain;
            words[word::TRANSLATION] = random.next_u64() as u32 & 0x00ff_0006;
            words[word::BLOCK_LOW] = random.next_u64() as u32 & 0xff00_0fc0;
            words[word::OPERATION] = random.next_u64() as u32 & 0xf;
            if let Ok(entry) = Ppaace::decode(&words) {
                assert_eq!(entry.encode(), Ok(words));
                decoded += 1;
            }
            let window = 1 << (12 + random.below(30));
            if let Ok(entry) = Spaace::decode(&words, window) {
                assert_eq!(entry.encode(window), Ok(words));
                decoded += 1;
            }
        }
        assert!(decoded > 50);
    }

    /// Returns a primary entry with two windows. The tests below change one property of it each.
    fn plain() -> Result<Ppaace> {
        Ok(Ppaace {
            valid: true,
            aperture: Some(Aperture::of_size(1 << 32, 1 << 20)?),
            windows: Windows::new(2)?,
            first_spaace: 7,
            block: Block {
                access: Access::All,
                phys: 0x12_3450_0000,
                size: 1 << 19,
                translated: true,
            },
            attributes: Attributes::default(),
        })
    }

    /// Returns the same entry with one window.
    fn undivided() -> Result<Ppaace> {
        let entry = plain()?;
        Ok(Ppaace {
            windows: Windows::ONE,
            first_spaace: 0,
            block: Block {
                size: 0,
                ..entry.block
            },
            ..entry
        })
    }

    #[test]
    fn bits_are_where_the_table_says() -> Result {
        let mut entry = plain()?;
        entry.attributes = Attributes {
            domain: Domain::Host {
                destination: 0x10,
                partition: 5,
                snoop: 0x33,
                coherent: true,
            },
            stash: NonZero::new(0xab).map(StashId),
            operation: OperationMapping::Indexed(3),
        };
        assert_eq!(
            entry.encode()?[..8],
            [
                0x1,
                // WSE 19 at 6, MW, AP 3, V.
                19 << 6 | 0x20 | 0x18 | 1,
                0x1005_3380,
                // CID, WCE 0, ATM 1, OTM 2.
                0xab << 16 | 1 << 2 | 2,
                0x12,
                // SWSE 18.
                0x3450_0000 | 18 << 6,
                7,
                3,
            ]
        );
        let entry = Spaace {
            valid: true,
            liodn: 0x1234,
            block: Block {
                access: Access::Update,
                phys: 0xf_fe04_4000,
                size: 4096,
                translated: true,
            },
            attributes: Attributes {
                domain: Domain::Io { destination: 0xff },
                stash: None,
                operation: OperationMapping::Immediate(
                    Mapped(Incoming::Read, Outgoing::Readi),
                    Some(Mapped(Incoming::Write, Outgoing::Wwsao)),
                ),
            },
        };
        assert_eq!(
            entry.encode(1 << 26)?[..8],
            [
                0,
                0x1234 << 16 | 2 << 3 | 4 | 2 | 1,
                0xff00_0000,
                1 << 2 | 1,
                0xf,
                0xfe04_4000 | 0xb << 6,
                0,
                0x0098_819d,
            ]
        );
        Ok(())
    }

    #[test]
    fn sizes_have_the_codes_of_the_table() -> Result {
        for (log2, code) in [
            (12, 0xb),
            (13, 0xc),
            (16, 0xf),
            (20, 0x13),
            (26, 0x19),
            (28, 0x1b),
            (30, 0x1d),
            (32, 0x1f),
            (36, 35),
            (63, 62),
        ] {
            let mut entry = undivided()?;
            entry.aperture = Some(Aperture::of_size(0, 1 << log2)?);
            entry.block.phys = 0;
            assert_eq!(entry.encode()?[word::STATE] >> 6 & 0x3f, code);
        }
        for log2 in 1..=16 {
            let mut entry = plain()?;
            entry.aperture = Some(Aperture::of_size(0, 1 << 40)?);
            entry.windows = Windows::new(1 << log2)?;
            assert_eq!(entry.encode()?[word::TRANSLATION] >> 4 & 0xf, log2 - 1);
        }
        Ok(())
    }

    #[test]
    fn bad_entries_are_not_encoded() -> Result {
        let plain = plain()?;
        let with = |change: fn(&mut Ppaace)| {
            let mut entry = plain;
            change(&mut entry);
            entry.encode().err()
        };
        assert_eq!(with(|_| ()), None);
        assert_eq!(with(|e| e.aperture = None), Some(Invalid::Empty));
        assert_eq!(with(|e| e.block.size = 1 << 20), Some(Invalid::Block));
        assert_eq!(with(|e| e.block.size = 2048), Some(Invalid::Block));
        assert_eq!(with(|e| e.block.size = 3 << 12), Some(Invalid::Block));
        assert_eq!(with(|e| e.block.size = 0), Some(Invalid::Block));
        assert_eq!(with(|e| e.block.phys += 4096), Some(Invalid::Block));
        assert_eq!(with(|e| e.block.translated = false), Some(Invalid::Block));
        let many = with(|e| e.windows = Windows::new(512).unwrap_or(e.windows));
        assert_eq!(many, Some(Invalid::Windows));
        assert_eq!(with(|e| e.windows = Windows::ONE), Some(Invalid::Windows));
        assert_eq!(
            with(|e| e.attributes.operation = OperationMapping::Indexed(16)),
            Some(Invalid::Operation)
        );
        assert_eq!(
            with(|e| {
                e.attributes.domain = Domain::Host {
                    destination: 0,
                    partition: 8,
                    snoop: 0,
                    coherent: true,
                }
            }),
            Some(Invalid::Partition)
        );
        let one = undivided()?;
        let misaligned = Ppaace {
            block: Block {
                phys: 1 << 19,
                ..one.block
            },
            ..one
        };
        assert_eq!(misaligned.encode().err(), Some(Invalid::Block));
        let empty = Spaace {
            valid: true,
            liodn: 0,
            block: Block::default(),
            attributes: Attributes::default(),
        };
        assert_eq!(empty.encode(MIN_SIZE).err(), Some(Invalid::Empty));
        Ok(())
    }

    #[test]
    fn bad_words_are_not_decoded() -> Result {
        let good = plain()?.encode()?;
        let with = |at: usize, mask: u32, value: u32| {
            let mut words = good;
            words[at] = words[at] & !mask | value;
            Ppaace::decode(&words).err()
        };
        assert_eq!(with(0, 0, 0), None);
        assert_eq!(with(word::STATE, 0x2, 0x2), Some(Invalid::Kind));
        // Sizes below a page and above 2^63 bytes.
        assert_eq!(with(word::STATE, 0xfc0, 1 << 6), Some(Invalid::Aperture));
        assert_eq!(with(word::STATE, 0xfc0, 0xa << 6), Some(Invalid::Aperture));
        assert_eq!(with(word::STATE, 0xfc0, 63 << 6), Some(Invalid::Aperture));
        // An address without a configuration.
        assert_eq!(with(word::STATE, 0xfc1, 0), Some(Invalid::Aperture));
        // The aperture isn't aligned to its size.
        assert_eq!(
            with(word::STATE, 0xffff_f000, 0x1000),
            Some(Invalid::Aperture)
        );
        // Windows below a page, and a number of windows for an undivided aperture.
        assert_eq!(with(word::TRANSLATION, 0xf0, 0xf0), Some(Invalid::Windows));
        assert_eq!(with(word::STATE, 0x20, 0), Some(Invalid::Windows));
        // Translation by pages, translation by both, and the reserved operation mode.
        assert_eq!(
            with(word::TRANSLATION, 0xc, 0x8),
            Some(Invalid::Translation)
        );
        assert_eq!(
            with(word::TRANSLATION, 0xc, 0xc),
            Some(Invalid::Translation)
        );
        assert_eq!(with(word::TRANSLATION, 0x3, 0x3), Some(Invalid::Operation));
        // A row that doesn't exist, or a mapping without a mode.
        assert_eq!(with(word::OPERATION, 0, 1), Some(Invalid::Reserved));
        for reserved in 8..WORDS {
            assert_eq!(with(reserved, 0, 1), Some(Invalid::Reserved));
        }
        assert_eq!(with(word::DOMAIN, 0, 0x7f), Some(Invalid::Reserved));
        assert_eq!(
            with(word::TRANSLATION, 0, 0xff00_0000),
            Some(Invalid::Reserved)
        );
        assert_eq!(with(word::BLOCK_LOW, 0, 0x3f), Some(Invalid::Reserved));
        assert_eq!(with(word::BLOCK_LOW, 0xfc0, 19 << 6), Some(Invalid::Block));
        assert_eq!(
            with(word::BLOCK_LOW, 0xffff_f000, 0x1000),
            Some(Invalid::Block)
        );
        // For an I/O destination, all domain fields but the destination are reserved.
        assert_eq!(with(word::STATE, 0x4, 0x4), Some(Invalid::Reserved));
        assert_eq!(
            with(word::DOMAIN, 0xff_0000, 8 << 16),
            Some(Invalid::Partition)
        );
        Ok(())
    }

    /// Tests that each operation and pair of operations is decoded as it was encoded, and that
    /// invalid codes are refused.
    #[test]
    fn operations_round_trip() {
        for a in Incoming::ALL {
            for mapped_a in Outgoing::ALL {
                let first = Mapped(*a, *mapped_a);
                let others = Incoming::ALL.iter().filter(|b| *b != a);
                let seconds = others.map(|b| Some(Mapped(*b, *mapped_a)));
                for second in Iterator::chain(seconds, [None]) {
                    let mapping = OperationMapping::Immediate(first, second);
                    let (mode, word) = mapping.encode();
                    assert_eq!(OperationMapping::decode(mode, word), Ok(mapping));
                }
            }
        }
        let good = (0..=0xffff).filter(|word| OperationMapping::decode(1, word << 16).is_ok());
        assert_eq!(good.count(), Incoming::ALL.len() * Outgoing::ALL.len());
        let good = (0..=0xffff).filter(|word| OperationMapping::decode(2, *word).is_ok());
        assert_eq!(good.count(), usize::from(MAPPING_ROWS));
    }

    #[test]
    fn rows_of_the_operation_mapping_table() {
        let portal = row(ROWS[0]);
        assert_eq!(portal[..8], [0x80, 0x81, 0x96, 0x9d, 0x90, 0, 0, 0x92]);
        assert!(portal[8..].iter().all(|byte| *byte == 0));
        assert_eq!(row(ROWS[1])[..2], [0x98, 0x81]);
    }
}
