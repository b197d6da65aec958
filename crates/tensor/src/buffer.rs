//! Memory aligned to cache lines, on huge pages where the system grants them.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Alignment of every buffer: one cache line, and one AVX-512 vector.
const LINE: usize = 64;
/// Buffers of at least this size start on a huge-page boundary and ask for huge pages.
const HUGE: usize = 2 << 20;

/// A zeroed, owned block of bytes, aligned to 64 bytes (to 2 MiB when it is at least that large).
///
/// Pages are committed by the system on first touch, so an unused part costs no memory.
pub struct Buffer {
    start: NonNull<u8>,
    layout: Layout,
    length: usize,
}

// SAFETY: the buffer owns its memory exclusively, like a `Vec<u8>`.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A zeroed buffer of `length` bytes.
    pub fn zeroed(length: usize) -> Buffer {
        Buffer::try_zeroed(length).unwrap_or_else(|| match layout_of(length) {
            Some(layout) => handle_alloc_error(layout),
            None => panic!("a buffer of {length} bytes is beyond the address space"),
        })
    }

    /// A zeroed buffer of `length` bytes; `None` where the system does not grant them.
    pub fn try_zeroed(length: usize) -> Option<Buffer> {
        let layout = layout_of(length)?;
        // SAFETY: the layout has a size of at least one byte.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let buffer = Buffer { start, layout, length };
        buffer.advise_huge_pages();
        Some(buffer)
    }

    /// A zeroed buffer for `length` f32 values.
    pub fn zeroed_f32(length: usize) -> Buffer {
        Buffer::zeroed(length * size_of::<f32>())
    }

    /// The content as f32 values (whole values only).
    pub fn as_f32(&self) -> &[f32] {
        // SAFETY: aligned to 64 bytes, initialised, and every bit pattern is an f32.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length / size_of::<f32>()) }
    }

    /// The content as mutable f32 values (whole values only).
    pub fn as_f32_mut(&mut self) -> &mut [f32] {
        // SAFETY: as for `as_f32`, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.length / size_of::<f32>()) }
    }

    /// The first byte, for callers that hand out disjoint parts to several threads.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The content as mutable bytes.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory is owned, initialised and `length` bytes long.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }

    fn advise_huge_pages(&self) {
        #[cfg(target_os = "linux")]
        if self.layout.align() == HUGE {
            // SAFETY: the range belongs to this buffer; the advice changes no content and may fail.
            unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, libc::MADV_HUGEPAGE) };
        }
    }
}

/// Size and alignment of a buffer of `length` bytes; `None` beyond the address space.
fn layout_of(length: usize) -> Option<Layout> {
    let align = if length >= HUGE { HUGE } else { LINE };
    Layout::from_size_align(length.max(1), align).ok()
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the memory is owned, initialised and `length` bytes long.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("length", &self.length).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(Buffer::try_zeroed(usize::MAX).is_none());
        assert!(Buffer::try_zeroed(isize::MAX as usize / 2).is_none());
    }

    #[test]
    fn is_zeroed_and_aligned() {
        for length in [0, 1, 63, 4096, HUGE + 5] {
            let mut buffer = Buffer::zeroed(length);
            assert_eq!(buffer.as_ref().len(), length);
            assert!(buffer.as_ref().iter().all(|&byte| byte == 0));
            assert_eq!(buffer.as_ptr() as usize % LINE, 0);
            buffer.as_f32_mut().fill(1.5);
            assert!(buffer.as_f32().iter().all(|&value| value == 1.5));
        }
    }
}
