"""All checks, one module for each subject. Importing this package registers them in the order of CHECKS.md."""

from receiver.conformance.checks import (  # noqa: F401, I001 - the order is that of the reports
    http,
    signature,
    signature_form,
    callers,
    claims,
    tokens,
    token_keys,
    token_claims,
    saving,
    times,
    loading,
    deleting,
    content,
    tenants,
    batches,
    replay,
    concurrency,
    framing,
)
