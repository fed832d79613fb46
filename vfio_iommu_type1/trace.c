// SPDX-License-Identifier: GPL-2.0
/* The tracepoint of the backend, as a function that Rust can call. */
#define CREATE_TRACE_POINTS
#include "trace.h"

void vfio_type1_trace_refused(const char *request, u64 iova, u64 size, u64 first, u64 last,
			      int error, const char *reason);

void vfio_type1_trace_refused(const char *request, u64 iova, u64 size, u64 first, u64 last,
			      int error, const char *reason)
{
	trace_vfio_type1_refused(request, iova, size, first, last, error, reason);
}
