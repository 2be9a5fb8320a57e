//! Questions of the admin API to all data cores: asked by letter, answered by letter, and gathered
//! here until all have come or the time is over.

use std::cell::RefCell;
use std::rc::Rc;

use crate::control::Control;
use crate::control::message::{Findings, Question, ToShard};
use crate::limits;

/// The answers that have come so far to the questions that wait.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    last: u64,
    /// By number of the question; each with the core that answered.
    open: Vec<(u64, Vec<(usize, Findings)>)>,
}

/// What came in time.
pub(crate) struct Answers {
    /// By core.
    pub(crate) given: Vec<(usize, Findings)>,
    /// The cores that are too busy, or stuck: what they have is not in any sum.
    pub(crate) missing: Vec<usize>,
}

impl Inquiries {
    fn begin(&mut self) -> u64 {
        self.last += 1;
        self.open.push((self.last, Vec::new()));
        self.last
    }

    /// An answer that comes too late is dropped: nobody waits for it.
    pub(super) fn answered(&mut self, number: u64, core: usize, findings: Findings) {
        if let Some((_, answers)) = self.open.iter_mut().find(|(open, _)| *open == number) {
            answers.push((core, findings));
        }
    }

    fn count(&self, number: u64) -> usize {
        self.open.iter().find(|(open, _)| *open == number).map_or(0, |(_, answers)| answers.len())
    }

    fn end(&mut self, number: u64, cores: usize) -> Answers {
        let index = self.open.iter().position(|(open, _)| *open == number);
        let mut given = index.map_or_else(Vec::new, |index| self.open.swap_remove(index).1);
        given.sort_by_key(|(core, _)| *core);
        let silent = |core: &usize| given.iter().all(|(known, _)| known != core);
        let missing = (0..cores).filter(silent).collect();
        Answers { given, missing }
    }
}

/// A question that waits. Whoever asked may be gone before the answers are there.
struct Open<'i> {
    inquiries: &'i RefCell<Inquiries>,
    number: u64,
}

impl Open<'_> {
    fn begin(inquiries: &RefCell<Inquiries>) -> Open<'_> {
        Open { inquiries, number: inquiries.borrow_mut().begin() }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.inquiries.borrow_mut().open.retain(|(number, _)| *number != self.number);
    }
}

impl Control {
    /// What every core says, in their order.
    pub(crate) async fn ask(self: &Rc<Self>, question: Question) -> Answers {
        let open = Open::begin(&self.inquiries);
        let number = open.number;
        self.to_shards(|| ToShard::Question(number, question));
        let cores = self.counters.len();
        let all = |control: &Control| control.inquiries.borrow().count(number) >= cores;
        self.until(limits::ADMIN_INQUIRY_TIMEOUT, all).await;
        self.inquiries.borrow_mut().end(number, cores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_to_their_question_and_late_ones_nowhere() {
        let mut inquiries = Inquiries::default();
        let (first, second) = (inquiries.begin(), inquiries.begin());
        inquiries.answered(second, 1, Findings::Forgotten(0));
        inquiries.answered(first, 0, Findings::Forgotten(0));
        inquiries.answered(second, 0, Findings::Forgotten(0));
        assert_eq!((inquiries.count(first), inquiries.count(second)), (1, 2));
        let answers = inquiries.end(second, 4);
        let cores: Vec<usize> = answers.given.iter().map(|(core, _)| *core).collect();
        assert_eq!((cores, answers.missing), (vec![0, 1], vec![2, 3]));
        inquiries.answered(second, 2, Findings::Forgotten(0));
        assert_eq!(inquiries.end(second, 4).given.len(), 0);
        assert_eq!(inquiries.open.len(), 1);
    }

    #[test]
    fn a_question_whose_asker_is_gone_leaves_nothing() {
        let inquiries = RefCell::default();
        let (gone, waits) = (Open::begin(&inquiries), Open::begin(&inquiries));
        drop(gone);
        let numbers: Vec<u64> = inquiries.borrow().open.iter().map(|(open, _)| *open).collect();
        assert_eq!(numbers, [waits.number]);
    }
}
