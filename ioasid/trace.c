// SPDX-License-Identifier: GPL-2.0
/* The tracepoints of ioasid, as functions that Rust can call. */
#define CREATE_TRACE_POINTS
#include "trace.h"

void ioasid_trace_alloc(u32 id, u32 set);
void ioasid_trace_free(u32 id);
void ioasid_trace_reclaim(u32 id);
void ioasid_trace_hand_over(u32 from, u32 to, int orphans);

void ioasid_trace_alloc(u32 id, u32 set)
{
	trace_ioasid_alloc(id, set);
}

void ioasid_trace_free(u32 id)
{
	trace_ioasid_free(id);
}

void ioasid_trace_reclaim(u32 id)
{
	trace_ioasid_reclaim(id);
}

void ioasid_trace_hand_over(u32 from, u32 to, int orphans)
{
	trace_ioasid_hand_over(from, to, orphans);
}
