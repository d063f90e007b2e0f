"""Writes `_blst.py`, the declarations of the C functions that `blst.py` calls.

Run it after every change here: `python -m enclave_signer.curves.build_blst`, and commit what it writes. The generated
module needs no C parser when it is imported, which saves 40 ms of every start.

Source: `blst.h` of libblst 0.3.16, whose names and argument order are kept.
"""

from pathlib import Path

from cffi import FFI

#: The generated module.
OUTPUT = Path(__file__).with_name("_blst.py")

#: libblst writes `limb_t` for `uint64_t`, `byte` for `uint8_t`, `BLST_ERROR`, an enum, for `int`, and
#: `blst_pairing` and `blst_fp12`, whose sizes only the library says, for `void` here.
DECLARATIONS = """
typedef struct { uint8_t b[32]; } blst_scalar;
typedef struct { uint64_t l[6]; } blst_fp;
typedef struct { blst_fp fp[2]; } blst_fp2;
typedef struct { blst_fp x, y, z; } blst_p1;
typedef struct { blst_fp x, y; } blst_p1_affine;
typedef struct { blst_fp2 x, y, z; } blst_p2;
typedef struct { blst_fp2 x, y; } blst_p2_affine;

size_t blst_p1_sizeof(void);
size_t blst_p1_affine_sizeof(void);
size_t blst_p2_sizeof(void);
size_t blst_p2_affine_sizeof(void);

void blst_scalar_from_bendian(blst_scalar *ret, const uint8_t a[32]);
_Bool blst_sk_check(const blst_scalar *sk);
void blst_sk_to_pk_in_g1(blst_p1 *out_pk, const blst_scalar *sk);
void blst_hash_to_g2(blst_p2 *out, const uint8_t *msg, size_t msg_len, const uint8_t *dst, size_t dst_len,
                     const uint8_t *aug, size_t aug_len);
void blst_sign_pk_in_g1(blst_p2 *out_sig, const blst_p2 *hash, const blst_scalar *sk);

void blst_p1_compress(uint8_t out[48], const blst_p1 *in);
void blst_p2_compress(uint8_t out[96], const blst_p2 *in);
int blst_p1_uncompress(blst_p1_affine *out, const uint8_t in[48]);
int blst_p2_uncompress(blst_p2_affine *out, const uint8_t in[96]);
_Bool blst_p1_affine_is_inf(const blst_p1_affine *a);
_Bool blst_p2_affine_is_inf(const blst_p2_affine *a);
_Bool blst_p1_affine_in_g1(const blst_p1_affine *p);
_Bool blst_p2_affine_in_g2(const blst_p2_affine *p);
int blst_core_verify_pk_in_g1(const blst_p1_affine *pk, const blst_p2_affine *signature, _Bool hash_or_encode,
                              const uint8_t *msg, size_t msg_len, const uint8_t *dst, size_t dst_len,
                              const uint8_t *aug, size_t aug_len);

void blst_p1_to_affine(blst_p1_affine *out, const blst_p1 *in);
void blst_p2_to_affine(blst_p2_affine *out, const blst_p2 *in);
size_t blst_p1s_mult_pippenger_scratch_sizeof(size_t npoints);
size_t blst_p2s_mult_pippenger_scratch_sizeof(size_t npoints);
void blst_p1s_mult_pippenger(blst_p1 *ret, const blst_p1_affine *const points[], size_t npoints,
                             const uint8_t *const scalars[], size_t nbits, void *scratch);
void blst_p2s_mult_pippenger(blst_p2 *ret, const blst_p2_affine *const points[], size_t npoints,
                             const uint8_t *const scalars[], size_t nbits, void *scratch);

size_t blst_pairing_sizeof(void);
void blst_pairing_init(void *ctx, _Bool hash_or_encode, const uint8_t *dst, size_t dst_len);
int blst_pairing_chk_n_mul_n_aggr_pk_in_g1(void *ctx, const blst_p1_affine *pk, _Bool pk_grpchk,
                                           const blst_p2_affine *signature, _Bool sig_grpchk,
                                           const uint8_t *scalar, size_t nbits, const uint8_t *msg, size_t msg_len,
                                           const uint8_t *aug, size_t aug_len);
size_t blst_fp12_sizeof(void);
void blst_aggregated_in_g2(void *out, const blst_p2_affine *signature);
void blst_pairing_commit(void *ctx);
_Bool blst_pairing_finalverify(const void *ctx, const void *gtsig);
"""


def build(output: Path = OUTPUT) -> None:
    """Write the generated module.

    Args:
        output: Where to; the file is replaced.
    """
    builder = FFI()
    builder.set_source("_blst", None)
    builder.cdef(DECLARATIONS)
    builder.emit_python_code(str(output))


if __name__ == "__main__":
    build()
