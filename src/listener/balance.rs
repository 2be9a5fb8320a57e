//! Evening out accepts. SO_REUSEPORT spreads by hash and is blind to load: with few long-lived
//! connections one core may get most of them. A core that is well above the least loaded one hands
//! a new connection over before reading from it.

/// Which core should have a connection that `own` has just accepted, when not itself. `open` is
/// every core's open connections, this one not counted yet.
pub(super) fn better_core(own: usize, open: impl Iterator<Item = i64> + Clone) -> Option<usize> {
    let mine = open.clone().nth(own)?;
    let (core, least) = open.enumerate().min_by_key(|&(_, connections)| connections)?;
    // The slack keeps connections where they land while the cores are about even: handing over
    // costs two system calls, and thousands of short connections are even enough by themselves.
    let slack = 1 + least / 8;
    (mine > least + slack).then_some(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn better(own: usize, open: &[i64]) -> Option<usize> {
        better_core(own, open.iter().copied())
    }

    #[test]
    fn even_cores_keep_what_they_accept() {
        assert_eq!(better(0, &[0, 0, 0, 0]), None);
        assert_eq!(better(1, &[4, 5, 4, 4]), None);
        assert_eq!(better(0, &[1000, 900, 950]), None);
    }

    #[test]
    fn a_core_well_above_the_least_loaded_hands_over_to_it() {
        assert_eq!(better(0, &[2, 0, 1]), Some(1));
        assert_eq!(better(2, &[100, 90, 120]), Some(1));
    }

    #[test]
    fn sixteen_connections_that_all_land_on_one_core_leave_none_of_four_idle() {
        let mut open = [0_i64; 4];
        for _ in 0..16 {
            let core = better(0, &open).unwrap_or(0);
            open[core] += 1;
        }
        assert!(open.iter().all(|&connections| connections >= 3), "{open:?}");
    }

    #[test]
    fn one_core_never_hands_over() {
        assert_eq!(better(0, &[5000]), None);
    }
}
