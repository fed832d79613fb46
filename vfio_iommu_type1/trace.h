/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vfio_type1

#if !defined(_VFIO_TYPE1_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _VFIO_TYPE1_TRACE_H

#include <linux/tracepoint.h>

/* A request for [iova, iova + size) failed because of [first, last]. */
TRACE_EVENT(vfio_type1_refused,
	TP_PROTO(const char *request, u64 iova, u64 size, u64 first, u64 last, int error,
		 const char *reason),
	TP_ARGS(request, iova, size, first, last, error, reason),
	TP_STRUCT__entry(
		__string(request, request)
		__field(u64, iova)
		__field(u64, size)
		__field(u64, first)
		__field(u64, last)
		__field(int, error)
		__string(reason, reason)
	),
	TP_fast_assign(
		__assign_str(request);
		__entry->iova = iova;
		__entry->size = size;
		__entry->first = first;
		__entry->last = last;
		__entry->error = error;
		__assign_str(reason);
	),
	TP_printk("%s iova=%#llx size=%#llx error=%d at=%#llx-%#llx reason=\"%s\"",
		  __get_str(request), __entry->iova, __entry->size, __entry->error,
		  __entry->first, __entry->last, __get_str(reason))
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
