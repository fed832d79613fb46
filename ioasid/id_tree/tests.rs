// SPDX-License-Identifier: GPL-2.0

//! The rules for the tree of ids.

use kernel::prelude::*;

#[kunit_tests(ioasid_id_tree)]
mod cases {
    use kernel::{
        static_lock_class,
        sync::atomic::Atomic, //
    };

    use kernel_ext::testing::Random;

    use super::super::*;
    use crate::read_once::{
        read_once,
        write_once, //
    };

    struct Value(Atomic<u32>);

    impl Default for Value {
        fn default() -> Self {
            Self(Atomic::new(0))
        }
    }

    type TestTree = Pin<KBox<IdTree<Value>>>;

    fn tree() -> Result<TestTree> {
        let caches = NodeCaches::new(c"ioasid_test_leaf", c"ioasid_test_node")?;
        let tree = IdTree::new(caches, c"ioasid::test", static_lock_class!());
        KBox::pin_init(tree, GFP_KERNEL)
    }

    fn alloc(tree: &TestTree, first: u32, last: u32) -> Result<u32> {
        let (id, ()) = tree.alloc(first, last, Gfp::Kernel, |_, _| ())?;
        Ok(id)
    }

    /// Takes an id and stores it in its value.
    fn insert(tree: &TestTree, id: u32) -> Result {
        tree.insert(id, Gfp::Atomic, |value, _| write_once(&value.0, id))
    }

    fn value(tree: &TestTree, id: u32) -> Option<u32> {
        Some(read_once(&tree.get(id, &rcu::Guard::new())?.0))
    }

    fn next(tree: &TestTree, from: u32) -> Option<u32> {
        Some(tree.next(from, &rcu::Guard::new())?.0)
    }

    #[test]
    fn alloc_takes_the_lowest_free_id_of_the_range() -> Result {
        let tree = tree()?;
        for expected in 60..70 {
            assert_eq!(alloc(&tree, 60, 69), Ok(expected));
        }
        assert_eq!(alloc(&tree, 60, 69), Err(ENOSPC));
        tree.remove(66);
        tree.remove(63);
        assert_eq!(alloc(&tree, 64, 69), Ok(66));
        assert_eq!(alloc(&tree, 0, 69), Ok(0));
        assert_eq!(alloc(&tree, 60, 69), Ok(63));
        Ok(())
    }

    #[test]
    fn a_taken_id_cannot_be_inserted() -> Result {
        let tree = tree()?;
        assert_eq!(insert(&tree, 70_000), Ok(()));
        assert_eq!(insert(&tree, 70_000), Err(EBUSY));
        tree.remove(70_000);
        assert_eq!(insert(&tree, 70_000), Ok(()));
        Ok(())
    }

    #[test]
    fn removing_a_free_id_has_no_effect() -> Result {
        let tree = tree()?;
        // Without a tree; with a tree that is too low, and with nodes on part of the path; in a
        // leaf.
        tree.remove(5);
        insert(&tree, 0)?;
        for free in [63, 64, 1 << 20, u32::MAX] {
            tree.remove(free);
        }
        insert(&tree, 1 << 20)?;
        for free in [1, 64, 4096, 1 << 18, (1 << 20) + 64, u32::MAX] {
            tree.remove(free);
        }
        assert_eq!(next(&tree, 0), Some(0));
        assert_eq!(next(&tree, 1), Some(1 << 20));
        for expected in 1..200 {
            assert_eq!(alloc(&tree, 0, u32::MAX), Ok(expected));
        }
        Ok(())
    }

    #[test]
    fn each_id_that_is_taken_gets_another_count() -> Result {
        let tree = tree()?;
        let mut counts = [0; 4];
        for (round, count) in counts.iter_mut().enumerate() {
            let (id, before) = tree.alloc(9, 9, Gfp::Kernel, |_, before| before)?;
            // Use a new leaf in each round.
            tree.remove(id);
            insert(&tree, 5000)?;
            tree.remove(5000);
            assert_eq!(value(&tree, 9), None);
            *count = before + round as u32;
        }
        assert_eq!(counts, [0, 3, 6, 9]);
        Ok(())
    }

    #[test]
    fn the_lowest_and_the_highest_id_can_be_taken() -> Result {
        let tree = tree()?;
        assert_eq!(alloc(&tree, u32::MAX, u32::MAX), Ok(u32::MAX));
        assert_eq!(alloc(&tree, u32::MAX, u32::MAX), Err(ENOSPC));
        assert_eq!(alloc(&tree, u32::MAX - 1, u32::MAX), Ok(u32::MAX - 1));
        assert_eq!(alloc(&tree, u32::MAX - 1, u32::MAX), Err(ENOSPC));
        assert_eq!(alloc(&tree, 0, u32::MAX), Ok(0));
        assert_eq!(next(&tree, 1), Some(u32::MAX - 1));
        assert_eq!(next(&tree, u32::MAX), Some(u32::MAX));
        tree.remove(u32::MAX);
        assert_eq!(next(&tree, u32::MAX), None);
        Ok(())
    }

    #[test]
    fn values_stay_when_the_tree_grows() -> Result {
        let tree = tree()?;
        // Each id needs one more level than the previous one.
        let ids = [0, 64, 4096, 1 << 18, 1 << 24, 1 << 30, u32::MAX];
        for (count, &id) in ids.iter().enumerate() {
            assert_eq!(insert(&tree, id), Ok(()));
            for &id in &ids[..=count] {
                assert_eq!(value(&tree, id), Some(id));
            }
        }
        let mut from = 0;
        for &id in &ids {
            assert_eq!(next(&tree, from), Some(id));
            from = id.saturating_add(1);
        }
        assert_eq!((value(&tree, 63), value(&tree, 128)), (Some(0), None));
        Ok(())
    }

    /// Takes an id and stores it in its value. Memory runs out after `nodes` nodes.
    fn insert_with_nodes(tree: &TestTree, id: u32, nodes: usize) -> Result {
        let mut left = nodes;
        let new_node = |shift| {
            left = left.checked_sub(1).ok_or(ENOMEM)?;
            tree.tree.new_node(shift, Gfp::Kernel)
        };
        tree.take(|value, _| write_once(&value.0, id), |_| Ok(id), new_node)?;
        Ok(())
    }

    /// Returns the number of nodes on the path to an id.
    fn path(tree: &TestTree, id: u32) -> usize {
        let change = tree.tree.lock();
        let Some(root) = change.view().root().filter(|root| root.covers(id)) else {
            return 0;
        };
        core::iter::successors(Some(root), |node| node.child(id)).count()
    }

    /// The tree grows upwards and downwards for an id, and there is no memory for one of the nodes.
    #[test]
    fn growth_without_memory_leaves_nothing_behind() -> Result {
        for (first, id) in [
            (0, u32::MAX),
            (0, 1 << 18),
            (u32::MAX, 0),
            (1 << 24, 1 << 23),
        ] {
            for nodes in 0.. {
                let tree = tree()?;
                insert(&tree, first)?;
                let before = path(&tree, first);
                let taken = insert_with_nodes(&tree, id, nodes);
                if taken.is_ok() {
                    // The growth failed at least twice.
                    assert!(nodes > 1);
                    break;
                }
                assert_eq!(taken, Err(ENOMEM));
                // What was there is found, and only the levels above it may remain.
                assert_eq!(value(&tree, first), Some(first));
                assert_eq!(next(&tree, 0), Some(first));
                assert!(path(&tree, first) >= before);
                assert_eq!(value(&tree, id), None);
                assert!(path(&tree, id) <= path(&tree, first).max(before));
                let ends_empty = {
                    let change = tree.tree.lock();
                    let lowest = change.view().lowest(id);
                    lowest.is_some_and(|node| node.is_empty())
                };
                assert!(!ends_empty);
                // With memory, the same id can be taken, and both can be freed.
                insert(&tree, id)?;
                assert_eq!(value(&tree, id), Some(id));
                assert_eq!(value(&tree, first), Some(first));
                tree.remove(first);
                tree.remove(id);
                assert_eq!(next(&tree, 0), None);
                assert_eq!(alloc(&tree, 0, u32::MAX), Ok(0));
            }
        }
        Ok(())
    }

    #[test]
    fn memory_runs_out_for_the_first_id() -> Result {
        let tree = tree()?;
        assert_eq!(insert_with_nodes(&tree, 1 << 20, 0), Err(ENOMEM));
        assert_eq!(next(&tree, 0), None);
        // The first failure leaves the root.
        for nodes in 1..3 {
            assert_eq!(insert_with_nodes(&tree, 1 << 20, nodes), Err(ENOMEM));
            assert_eq!(next(&tree, 0), None);
            assert_eq!(value(&tree, 1 << 20), None);
            insert(&tree, 5)?;
            tree.remove(5);
        }
        insert(&tree, 1 << 20)?;
        assert_eq!(next(&tree, 0), Some(1 << 20));
        Ok(())
    }

    #[test]
    fn full_nodes_are_skipped() -> Result {
        let tree = tree()?;
        // Fill a tree of two levels, which then becomes the first child of a higher root.
        for expected in 0..4096 {
            assert_eq!(alloc(&tree, 0, u32::MAX), Ok(expected));
        }
        assert_eq!(alloc(&tree, 0, 4095), Err(ENOSPC));
        assert_eq!(alloc(&tree, 7, u32::MAX), Ok(4096));
        for id in [4095, 2048, 64, 63, 0] {
            tree.remove(id);
            assert_eq!(alloc(&tree, 0, u32::MAX), Ok(id));
        }
        tree.remove(100);
        assert_eq!(alloc(&tree, 101, u32::MAX), Ok(4097));
        Ok(())
    }

    #[test]
    fn empty_leaves_are_freed_except_the_last() -> Result {
        let tree = tree()?;
        for id in [0, 1 << 20, 2 << 20] {
            insert(&tree, id)?;
        }
        tree.remove(1 << 20);
        // The leaf that became empty last is kept.
        assert_eq!(value(&tree, 1 << 20), Some(1 << 20));
        tree.remove(2 << 20);
        assert_eq!(value(&tree, 1 << 20), None);
        assert_eq!(value(&tree, 2 << 20), Some(2 << 20));
        // It is also kept if it has ids again.
        insert(&tree, (2 << 20) + 1)?;
        tree.remove(0);
        assert_eq!(value(&tree, 2 << 20), Some(2 << 20));
        assert_eq!(next(&tree, 0), Some((2 << 20) + 1));
        Ok(())
    }

    #[test]
    fn random_calls_agree_with_a_list() -> Result {
        /// The first ids of three ranges in the corners of a tree. Each range has `EACH` ids.
        const CORNERS: [u32; 3] = [0, (1 << 18) - 100, u32::MAX - 199];
        const EACH: u32 = 200;
        let tree = tree()?;
        let mut taken = [[false; EACH as usize]; CORNERS.len()];
        let mut sequence = Random::new(1);
        let mut random = |end: u32| sequence.below(end.into()) as u32;
        for round in 0..100_000 {
            let (corner, at) = (random(3) as usize, random(EACH));
            let (base, taken) = (CORNERS[corner], &mut taken[corner]);
            let (last, has) = (base + (EACH - 1), taken[at as usize]);
            // The tree fills and empties in turns.
            let frees = if round / 4_000 % 2 == 0 { 20 } else { 80 };
            if random(100) < frees {
                if has {
                    tree.remove(base + at);
                    taken[at as usize] = false;
                }
            } else if random(2) == 0 {
                let expected = if has { Err(EBUSY) } else { Ok(()) };
                assert_eq!(insert(&tree, base + at), expected);
                taken[at as usize] = true;
            } else {
                let free = (at..EACH).find(|&at| !taken[at as usize]);
                let expected = free.map(|at| base + at).ok_or(ENOSPC);
                assert_eq!(alloc(&tree, base + at, last), expected);
                free.inspect(|&at| taken[at as usize] = true);
            }
            let first = (at..EACH)
                .find(|&at| taken[at as usize])
                .map(|at| base + at);
            let found = next(&tree, base + at);
            assert_eq!(found.filter(|&id| id <= last), first);
        }
        Ok(())
    }
}
