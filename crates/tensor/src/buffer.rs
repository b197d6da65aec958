//! Memory aligned to cache lines, on huge pages where the system grants them.
//!
//! Large buffers come straight from the system and go straight back, past the allocator: what a dropped plan took is
//! there for the next one at once.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Alignment of every buffer: one cache line, and one AVX-512 vector.
const LINE: usize = 64;
/// Buffers of at least this size start on a huge-page boundary and ask for huge pages.
const HUGE: usize = 2 << 20;
/// Buffers of at least this size have pages of their own, and go back to the system when they are dropped.
const LARGE: usize = 128 << 10;
/// Alignment of those that are not huge.
const PAGE: usize = 4096;

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
        let start = if layout.align() >= PAGE {
            system::allocate(layout)?
        } else {
            // SAFETY: the layout has a size of at least one byte.
            NonNull::new(unsafe { alloc_zeroed(layout) })?
        };
        Some(Buffer { start, layout, length })
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
}

/// Large buffers on Unix: pages of their own.
#[cfg(unix)]
mod system {
    use std::alloc::Layout;
    use std::ptr::{self, NonNull};

    /// Bytes of whole pages.
    fn whole(layout: Layout) -> Option<usize> {
        // No system that Rust runs on has pages larger than 64 KiB, huge ones apart.
        layout.size().checked_next_multiple_of(layout.align().max(64 << 10))
    }

    pub(super) fn allocate(layout: Layout) -> Option<NonNull<u8>> {
        let bytes = whole(layout)?;
        // Pages are aligned as they come; for a huge page's alignment, what is before and behind is given back.
        let more = if layout.align() == super::HUGE { super::HUGE } else { 0 };
        let all = bytes.checked_add(more)?;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new private mapping touches nothing that is there.
        let start = unsafe { libc::mmap(ptr::null_mut(), all, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return None;
        }
        if more == 0 {
            return NonNull::new(start.cast());
        }
        let before = start.align_offset(super::HUGE);
        let aligned = start.wrapping_byte_add(before);
        // SAFETY: both pieces are parts of the new mapping, and of whole pages: everything but `before`, which is a
        // multiple of a page, is a multiple of a huge page. Advice changes no content and may fail.
        unsafe {
            if before > 0 {
                libc::munmap(start, before);
            }
            if super::HUGE > before {
                libc::munmap(aligned.wrapping_byte_add(bytes), super::HUGE - before);
            }
            #[cfg(target_os = "linux")]
            libc::madvise(aligned, bytes, libc::MADV_HUGEPAGE);
        }
        NonNull::new(aligned.cast())
    }

    /// # Safety
    /// `start` is from [`allocate`] with this layout, and is not used any more.
    pub(super) unsafe fn free(start: NonNull<u8>, layout: Layout) {
        if let Some(bytes) = whole(layout) {
            // SAFETY: as promised by the caller.
            unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
        }
    }
}

/// Large buffers elsewhere.
#[cfg(not(unix))]
mod system {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::ptr::NonNull;

    pub(super) fn allocate(layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: large layouts have a size.
        NonNull::new(unsafe { alloc_zeroed(layout) })
    }

    /// # Safety
    /// `start` is from [`allocate`] with this layout, and is not used any more.
    pub(super) unsafe fn free(start: NonNull<u8>, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { dealloc(start.as_ptr(), layout) };
    }
}

/// Size and alignment of a buffer of `length` bytes; `None` beyond the address space.
fn layout_of(length: usize) -> Option<Layout> {
    let align = match length {
        HUGE.. => HUGE,
        LARGE.. => PAGE,
        _ => LINE,
    };
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
        // SAFETY: allocated in `try_zeroed` with this very layout, in the same way.
        unsafe {
            if self.layout.align() >= PAGE {
                system::free(self.start, self.layout);
            } else {
                dealloc(self.start.as_ptr(), self.layout);
            }
        }
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
