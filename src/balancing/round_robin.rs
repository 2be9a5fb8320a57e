//! Smooth weighted round robin, as nginx does it: every endpoint gains its weight, the richest is
//! picked and pays the sum. 5/1/1 gives a a b a c a a, never five in a row. With equal weights it
//! is plain round robin.

/// One core's turn among the endpoints of one cluster.
#[derive(Debug)]
pub(crate) struct RoundRobin {
    credit: Vec<i64>,
    /// All weights are equal: then the turn is a number, not a search.
    even: bool,
    next: usize,
}

impl RoundRobin {
    /// `start` differs from core to core, so that they do not all begin with the first endpoint.
    pub(crate) fn new(weights: &[u32], start: usize) -> RoundRobin {
        let even = weights.windows(2).all(|pair| pair[0] == pair[1]) && weights.first() != Some(&0);
        RoundRobin { credit: vec![0; weights.len()], even, next: start % weights.len().max(1) }
    }

    /// Where the turn is, for a list that takes this one's place.
    pub(crate) fn position(&self) -> usize {
        self.next
    }

    /// The endpoint whose turn it is among those eligible. An endpoint of weight 0 is never picked.
    pub(crate) fn pick(
        &mut self,
        weights: &[u32],
        eligible: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if self.even {
            self.pick_next(weights.len(), eligible)
        } else {
            self.pick_richest(weights, eligible)
        }
    }

    fn pick_next(&mut self, count: usize, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let picked =
            (0..count).map(|step| (self.next + step) % count).find(|&index| eligible(index))?;
        self.next = picked + 1;
        Some(picked)
    }

    fn pick_richest(&mut self, weights: &[u32], eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let mut sum = 0;
        let mut richest = None;
        for (index, &weight) in weights.iter().enumerate() {
            if weight == 0 || !eligible(index) {
                continue;
            }
            sum += i64::from(weight);
            self.credit[index] += i64::from(weight);
            if richest.is_none_or(|best: usize| self.credit[index] > self.credit[best]) {
                richest = Some(index);
            }
        }
        let picked = richest?;
        self.credit[picked] -= sum;
        Some(picked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[u32], count: usize) -> Vec<usize> {
        let mut turn = RoundRobin::new(weights, 0);
        (0..count).map(|_| turn.pick(weights, |_| true).expect("one is eligible")).collect()
    }

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(turns(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn weights_are_met_smoothly() {
        assert_eq!(turns(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn weights_are_met_exactly_over_a_full_round() {
        let weights = [3, 2, 1, 7];
        let mut counts = [0; 4];
        turns(&weights, 13 * 100).into_iter().for_each(|index| counts[index] += 1);
        assert_eq!(counts, [300, 200, 100, 700]);
    }

    #[test]
    fn weight_zero_takes_nothing() {
        assert!(turns(&[0, 1], 10).iter().all(|&index| index == 1));
        assert_eq!(RoundRobin::new(&[0, 0], 0).pick(&[0, 0], |_| true), None);
    }

    #[test]
    fn the_ineligible_are_passed_over() {
        let mut turn = RoundRobin::new(&[1, 1, 1], 0);
        assert_eq!(turn.pick(&[1, 1, 1], |index| index != 0), Some(1));
        assert_eq!(turn.pick(&[1, 1, 1], |_| false), None);
    }

    #[test]
    fn no_endpoints_is_no_pick() {
        assert_eq!(RoundRobin::new(&[], 3).pick(&[], |_| true), None);
    }
}
