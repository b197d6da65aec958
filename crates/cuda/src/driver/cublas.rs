//! cuBLASLt: matrix products of 8-bit floats.
#![allow(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;

use super::calls::Handle;
use crate::error::{CudaError, Result};
use crate::launch::Pointer;
use crate::library::{Functions, load_global};
use crate::matmul::Matmul;
use crate::specialisation::Format;

const NAME: &str = "libcublasLt.so.13";
const REMEDY: &str = "install the CUDA 13 toolkit's cuBLAS, or the Python package nvidia-cublas with its lib folder in \
                      LD_LIBRARY_PATH, or take a precision other than fp8";

/// Bytes that a product may use while it is computed.
pub(super) const WORKSPACE: usize = 32 << 20;
/// Algorithms that are looked at for a product.
const CANDIDATES: usize = 16;

/// Types, attributes and modes, as library_types.h, cublas_api.h and cublasLt.h number them.
const F32: c_int = 0;
const F16: c_int = 2;
const BF16: c_int = 14;
const E4M3: c_int = 28;
const COMPUTE_F32: c_int = 68;
const TRANSPOSED: c_int = 1;
const EPILOGUE_BIAS: u32 = 4;
const SCALE_PER_ROW: c_int = 3;
const DESC_TRANSPOSE_A: c_int = 3;
const DESC_EPILOGUE: c_int = 7;
const DESC_BIAS: c_int = 8;
const DESC_A_SCALES: c_int = 17;
const DESC_B_SCALES: c_int = 18;
const DESC_A_SCALE_MODE: c_int = 31;
const DESC_B_SCALE_MODE: c_int = 32;
const PREFERENCE_WORKSPACE: c_int = 1;
const PREFERENCE_REDUCTIONS: c_int = 3;
const ALGORITHM_SPLITS: c_int = 2;

/// How a product is computed; what it says is the library's own.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Algorithm([u64; 8]);

/// What the library says of an algorithm.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Candidate {
    algorithm: Algorithm,
    workspace: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

type Destroy = unsafe extern "C" fn(Handle) -> c_int;

/// The functions, with the signatures of cublasLt.h. Addresses on the device are numbers.
#[derive(Clone, Copy)]
struct Table {
    create: unsafe extern "C" fn(*mut Handle) -> c_int,
    destroy: Destroy,
    status_name: unsafe extern "C" fn(c_int) -> *const c_char,
    desc_create: unsafe extern "C" fn(*mut Handle, c_int, c_int) -> c_int,
    desc_destroy: Destroy,
    desc_set: unsafe extern "C" fn(Handle, c_int, *const c_void, usize) -> c_int,
    layout_create: unsafe extern "C" fn(*mut Handle, c_int, u64, u64, i64) -> c_int,
    layout_destroy: Destroy,
    preference_create: unsafe extern "C" fn(*mut Handle) -> c_int,
    preference_destroy: Destroy,
    preference_set: unsafe extern "C" fn(Handle, c_int, *const c_void, usize) -> c_int,
    #[rustfmt::skip]
    heuristic: unsafe extern "C" fn(Handle, Handle, Handle, Handle, Handle, Handle, Handle, c_int, *mut Candidate, *mut c_int) -> c_int,
    #[rustfmt::skip]
    check: unsafe extern "C" fn(Handle, Handle, Handle, Handle, Handle, Handle, *const Algorithm, *mut Candidate) -> c_int,
    config: unsafe extern "C" fn(*const Algorithm, c_int, *mut c_void, usize, *mut usize) -> c_int,
    #[rustfmt::skip]
    matmul: unsafe extern "C" fn(Handle, Handle, *const f32, u64, Handle, u64, Handle, *const f32, u64, Handle, u64, Handle, *const Algorithm, u64, usize, Handle) -> c_int,
}

impl Table {
    fn of(functions: &Functions) -> Result<Table> {
        // SAFETY: the fields' types are the signatures of cublasLt.h for these names, and the library is never closed.
        unsafe {
            Ok(Table {
                create: functions.get("cublasLtCreate")?,
                destroy: functions.get("cublasLtDestroy")?,
                status_name: functions.get("cublasLtGetStatusName")?,
                desc_create: functions.get("cublasLtMatmulDescCreate")?,
                desc_destroy: functions.get("cublasLtMatmulDescDestroy")?,
                desc_set: functions.get("cublasLtMatmulDescSetAttribute")?,
                layout_create: functions.get("cublasLtMatrixLayoutCreate")?,
                layout_destroy: functions.get("cublasLtMatrixLayoutDestroy")?,
                preference_create: functions.get("cublasLtMatmulPreferenceCreate")?,
                preference_destroy: functions.get("cublasLtMatmulPreferenceDestroy")?,
                preference_set: functions.get("cublasLtMatmulPreferenceSetAttribute")?,
                heuristic: functions.get("cublasLtMatmulAlgoGetHeuristic")?,
                check: functions.get("cublasLtMatmulAlgoCheck")?,
                config: functions.get("cublasLtMatmulAlgoConfigGetAttribute")?,
                matmul: functions.get("cublasLtMatmul")?,
            })
        }
    }

    fn checked(&self, call: &'static str, status: c_int) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the function takes any code.
        let name = unsafe { (self.status_name)(status) };
        let name = if name.is_null() {
            "an unknown error".to_owned()
        } else {
            // SAFETY: it is a static C string of the library's.
            unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
        };
        Err(CudaError::Driver { call, name, code: status })
    }

    fn layout(&self, element: c_int, rows: usize, columns: usize) -> Result<Owned> {
        let mut layout = Owned { handle: Handle::NULL, destroy: self.layout_destroy };
        let leading = i64::try_from(rows).unwrap_or(i64::MAX);
        // SAFETY: the place is valid. The matrix is column by column, without gaps.
        let status =
            unsafe { (self.layout_create)(&raw mut layout.handle, element, rows as u64, columns as u64, leading) };
        self.checked("cublasLtMatrixLayoutCreate", status)?;
        Ok(layout)
    }

    fn set<T: Copy>(&self, operation: &Owned, attribute: c_int, value: T) -> Result<()> {
        // SAFETY: the library copies as many bytes as the value has, or refuses the attribute.
        let status = unsafe { (self.desc_set)(operation.handle, attribute, (&raw const value).cast(), size_of::<T>()) };
        self.checked("cublasLtMatmulDescSetAttribute", status)
    }

    /// What a product is made of: an operation and its matrices. cuBLAS has matrices column by column: to it, the weight is
    /// `[k, n]` and transposed, the rows are `[k, rows]`, the result is `[n, rows]`.
    fn describe(&self, matmul: &Matmul) -> Result<Description> {
        let Matmul { format, rows, n, k, scaling, .. } = *matmul;
        let mut operation = Owned { handle: Handle::NULL, destroy: self.desc_destroy };
        // SAFETY: the place is valid.
        let status = unsafe { (self.desc_create)(&raw mut operation.handle, COMPUTE_F32, F32) };
        self.checked("cublasLtMatmulDescCreate", status)?;
        self.set(&operation, DESC_TRANSPOSE_A, TRANSPOSED)?;
        if let Some(scaling) = scaling {
            self.set(&operation, DESC_A_SCALE_MODE, SCALE_PER_ROW)?;
            self.set(&operation, DESC_B_SCALE_MODE, SCALE_PER_ROW)?;
            self.set(&operation, DESC_A_SCALES, scaling.weight.0)?;
            self.set(&operation, DESC_B_SCALES, scaling.x.0)?;
            if scaling.bias != Pointer::NULL {
                self.set(&operation, DESC_EPILOGUE, EPILOGUE_BIAS)?;
                self.set(&operation, DESC_BIAS, scaling.bias.0)?;
            }
        }
        let result = match format {
            Format::F16 => F16,
            Format::Bf16 => BF16,
        };
        Ok(Description {
            operation,
            weight: self.layout(E4M3, k, n)?,
            x: self.layout(E4M3, k, rows)?,
            y: self.layout(result, n, rows)?,
        })
    }
}

/// Something of the library's that is given back.
struct Owned {
    handle: Handle,
    destroy: Destroy,
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.handle != Handle::NULL {
            // SAFETY: the library made it, and nothing uses it any more. A failure leaves it to the end of the process.
            let _ = unsafe { (self.destroy)(self.handle) };
        }
    }
}

struct Description {
    operation: Owned,
    weight: Owned,
    x: Owned,
    y: Owned,
}

/// What an algorithm is chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    format: Format,
    n: usize,
    k: usize,
    scaled: bool,
    biased: bool,
}

impl Shape {
    fn of(matmul: &Matmul) -> Shape {
        let Matmul { format, n, k, scaling, .. } = *matmul;
        let biased = scaling.is_some_and(|scaling| scaling.bias != Pointer::NULL);
        Shape { format, n, k, scaled: scaling.is_some(), biased }
    }
}

/// The loaded library on one GPU.
pub(super) struct Cublas {
    table: Table,
    handle: Owned,
    workspace: Pointer,
    chosen: HashMap<Shape, Algorithm>,
    ready: HashSet<(Shape, usize)>,
}

impl Cublas {
    /// Loads the library, from a path or where the system's loader finds it, for the current context, with memory of
    /// [`WORKSPACE`] bytes that it may use.
    pub(super) fn load(path: Option<&Path>, workspace: Pointer) -> Result<Cublas> {
        let path = path.unwrap_or(Path::new(NAME));
        let library = load_global(path, REMEDY)?;
        let name = path.display().to_string();
        let table = Table::of(&Functions { library: &library, name: &name, remedy: REMEDY })?;
        // It keeps a state that has to live until the process ends.
        std::mem::forget(library);
        let mut handle = Owned { handle: Handle::NULL, destroy: table.destroy };
        // SAFETY: the place is valid.
        table.checked("cublasLtCreate", unsafe { (table.create)(&raw mut handle.handle) })?;
        Ok(Cublas { table, handle, workspace, chosen: HashMap::new(), ready: HashSet::new() })
    }

    /// Chooses how products of a shape are computed by the first one, and runs the product once: in a capture, the library could not
    /// load what it needs.
    pub(super) fn prepare(&mut self, matmul: &Matmul, stream: Handle) -> Result<()> {
        let shape = Shape::of(matmul);
        if self.ready.contains(&(shape, matmul.rows)) {
            return Ok(());
        }
        let algorithm = match self.chosen.get(&shape) {
            Some(algorithm) if self.fits(matmul, algorithm)? => *algorithm,
            Some(_) => return unsupported(matmul, "by the algorithm of more rows"),
            None => self.choose(matmul)?,
        };
        self.chosen.insert(shape, algorithm);
        self.run(matmul, stream)?;
        self.ready.insert((shape, matmul.rows));
        Ok(())
    }

    /// Gives a prepared product to a stream.
    pub(super) fn run(&self, matmul: &Matmul, stream: Handle) -> Result<()> {
        let Some(algorithm) = self.chosen.get(&Shape::of(matmul)) else {
            return unsupported(matmul, "that was not prepared");
        };
        let Description { operation, weight, x, y } = self.table.describe(matmul)?;
        let Matmul { weight: weight_at, x: x_at, y: y_at, factor, .. } = matmul;
        let zero = 0.0;
        // SAFETY: factors are on the host, as is the default; all else is on the device, with the sizes that the layouts say and the
        // workspace's. The library copies what the descriptors say.
        let status = unsafe {
            (self.table.matmul)(
                self.handle.handle,
                operation.handle,
                factor,
                weight_at.0,
                weight.handle,
                x_at.0,
                x.handle,
                &raw const zero,
                y_at.0,
                y.handle,
                y_at.0,
                y.handle,
                algorithm,
                self.workspace.0,
                WORKSPACE,
                stream,
            )
        };
        self.table.checked("cublasLtMatmul", status)
    }

    /// The first algorithm that sums the whole depth in one go, for these rows and for fewer.
    fn choose(&self, matmul: &Matmul) -> Result<Algorithm> {
        for candidate in self.candidates(matmul)? {
            if candidate.state == 0 && self.splits(&candidate.algorithm)? == 1 {
                let fewer = std::iter::successors(Some(matmul.rows), |rows| Some(rows / 2).filter(|&rows| rows > 0));
                let fits = fewer.map(|rows| self.fits(&Matmul { rows, ..*matmul }, &candidate.algorithm));
                if fits.collect::<Result<Vec<bool>>>()?.into_iter().all(|fits| fits) {
                    return Ok(candidate.algorithm);
                }
            }
        }
        unsupported(matmul, "that sums the depth in one go for any number of rows")
    }

    /// What the library proposes, the fastest first.
    fn candidates(&self, matmul: &Matmul) -> Result<Vec<Candidate>> {
        let (table, Description { operation, weight, x, y }) = (&self.table, self.table.describe(matmul)?);
        let mut preference = Owned { handle: Handle::NULL, destroy: table.preference_destroy };
        // SAFETY: the place is valid.
        let status = unsafe { (table.preference_create)(&raw mut preference.handle) };
        table.checked("cublasLtMatmulPreferenceCreate", status)?;
        let (workspace, no_reductions) = (WORKSPACE as u64, 0u32);
        let values: [(c_int, *const c_void, usize); 2] = [
            (PREFERENCE_WORKSPACE, (&raw const workspace).cast(), size_of_val(&workspace)),
            (PREFERENCE_REDUCTIONS, (&raw const no_reductions).cast(), size_of_val(&no_reductions)),
        ];
        for (attribute, value, bytes) in values {
            // SAFETY: the value has that many bytes, which the library copies.
            let status = unsafe { (table.preference_set)(preference.handle, attribute, value, bytes) };
            table.checked("cublasLtMatmulPreferenceSetAttribute", status)?;
        }
        let (mut found, mut count) = ([Candidate::default(); CANDIDATES], 0);
        // SAFETY: there is room for as many candidates as are asked for; handles are the library's own.
        let status = unsafe {
            (table.heuristic)(
                self.handle.handle,
                operation.handle,
                weight.handle,
                x.handle,
                y.handle,
                y.handle,
                preference.handle,
                CANDIDATES as c_int,
                found.as_mut_ptr(),
                &raw mut count,
            )
        };
        table.checked("cublasLtMatmulAlgoGetHeuristic", status)?;
        Ok(found.into_iter().take(usize::try_from(count).unwrap_or(0)).collect())
    }

    /// Into how many parts an algorithm divides the depth.
    fn splits(&self, algorithm: &Algorithm) -> Result<i32> {
        let (mut splits, mut written) = (0i32, 0);
        let place = (&raw mut splits).cast();
        // SAFETY: the place has as many bytes as are said.
        let status =
            unsafe { (self.table.config)(algorithm, ALGORITHM_SPLITS, place, size_of::<i32>(), &raw mut written) };
        self.table.checked("cublasLtMatmulAlgoConfigGetAttribute", status)?;
        Ok(splits)
    }

    /// Whether an algorithm does a product within the workspace.
    fn fits(&self, matmul: &Matmul, algorithm: &Algorithm) -> Result<bool> {
        let Description { operation, weight, x, y } = self.table.describe(matmul)?;
        let mut found = Candidate::default();
        // SAFETY: handles are the library's own; the algorithm and the place for the result are valid.
        let status = unsafe {
            (self.table.check)(
                self.handle.handle,
                operation.handle,
                weight.handle,
                x.handle,
                y.handle,
                y.handle,
                algorithm,
                &raw mut found,
            )
        };
        Ok(status == 0 && found.workspace <= WORKSPACE)
    }
}

fn unsupported<T>(matmul: &Matmul, what: &str) -> Result<T> {
    let Matmul { rows, n, k, .. } = matmul;
    Err(CudaError::Unsupported(format!("a product of {rows} rows of {k} by {n} in fp8 {what}, in cuBLASLt")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_without_library_is_told_so_in_one_line() {
        let path = Path::new("/nonexistent/libcublasLt.so.13");
        let Err(error) = Cublas::load(Some(path), Pointer::NULL) else { panic!("there is none") };
        let text = error.to_string();
        assert!(text.contains("libcublasLt.so.13") && text.contains("nvidia-cublas"), "{text}");
        assert!(text.contains("other than fp8") && !text.contains('\n'), "{text}");
    }
}
