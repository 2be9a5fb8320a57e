//! What an exchange needs only while it has bytes in hand: the response's head and the heads and
//! framing about to be sent. Lent like a buffer and given back before waiting, so that a core works
//! on the same few warm cache lines however many exchanges it has.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use crate::http::head::ResponseHead;
use crate::limits;

#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) head: ResponseHead,
    pub(crate) out: Vec<u8>,
    /// What follows the body bytes of one send.
    pub(crate) tail: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Workspaces(Rc<RefCell<Vec<Work>>>);

/// A workspace on loan; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// `None` only while it is being dropped.
    work: Option<Work>,
    home: Workspaces,
}

impl Workspaces {
    /// With empty vectors that have room already.
    pub(crate) fn take(&self) -> Workspace {
        let work = self.0.borrow_mut().pop().unwrap_or_default();
        Workspace { work: Some(work), home: self.clone() }
    }
}

impl Deref for Workspace {
    type Target = Work;

    fn deref(&self) -> &Work {
        self.work.as_ref().expect("it is there until the drop")
    }
}

impl DerefMut for Workspace {
    fn deref_mut(&mut self) -> &mut Work {
        self.work.as_mut().expect("it is there until the drop")
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let mut free = self.home.0.borrow_mut();
        if let Some(mut work) = self.work.take()
            && free.len() < limits::WORKSPACES_KEPT
            && work.out.capacity() <= limits::BUFFER_BYTES
        {
            work.head.clear();
            work.out.clear();
            work.tail.clear();
            free.push(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_comes_back_empty_with_its_memory() {
        let workspaces = Workspaces::default();
        let mut lent = workspaces.take();
        lent.out.extend_from_slice(&[1; 100]);
        let memory = lent.out.as_ptr();
        drop(lent);
        let again = workspaces.take();
        assert_eq!((again.out.len(), again.out.as_ptr()), (0, memory));
    }

    #[test]
    fn one_that_grew_beyond_a_buffer_is_freed() {
        let workspaces = Workspaces::default();
        workspaces.take().out.reserve(limits::BUFFER_BYTES + 1);
        assert_eq!(workspaces.take().out.capacity(), 0);
    }
}
