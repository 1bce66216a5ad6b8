/* The ExecuTorch runtime behind a few plain C functions, so that a device needs neither torch nor its Python modules.

   One handle is one method of one program: its bytes (a copy), its planned memory and its tensors. A handle must
   not be used by two threads at once. Functions that can fail return 0 or an error number and leave a text for
   hs_et_message; a broken program is an error here, never the end of the process. */
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include <time.h>

#include <executorch/extension/data_loader/buffer_data_loader.h>
#include <executorch/extension/memory_allocator/malloc_memory_allocator.h>
#include <executorch/runtime/core/event_tracer.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>

namespace rt = executorch::runtime;
namespace aten = executorch::aten;
using executorch::extension::BufferDataLoader;
using executorch::extension::MallocMemoryAllocator;

/* The wheel has the library but not the header. */
namespace executorch::extension::threadpool {
class ThreadPool {
  public:
    bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool *get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

constexpr int ABORTED = 255;  // not one of the runtime's own error numbers
constexpr int MAX_DIMENSIONS = 8;
thread_local std::string message;

void keep_message(et_timestamp_t, et_pal_log_level_t level, const char *, const char *, size_t, const char *text,
                  size_t length) {
    if (level == kError || level == kFatal) message.assign(text, length);
}

/* The runtime aborts where an assertion of its own fails; the functions below catch this instead. */
void give_up() { throw std::runtime_error(message); }

/* Once in a process; before it the runtime writes whatever it does to stderr. */
void prepare() {
    static const bool registered = [] {
        rt::runtime_init();
        return rt::register_pal(
            rt::PalImpl::create(nullptr, give_up, nullptr, nullptr, keep_message, nullptr, nullptr, __FILE__));
    }();
    (void)registered;
}

struct Input {
    std::vector<aten::SizesType> sizes;
    std::vector<aten::DimOrderType> order;
    std::vector<aten::StridesType> strides;
    std::unique_ptr<aten::TensorImpl> tensor;
};

/* Adds up the time of every instruction of a program, for those who profile it; without one, a method is not slowed
   down. The runtime calls it around each instruction and around each kernel; the kernels' names are kept. Not an
   ETDump: that is read with packages that need torch. */
class Clock final : public rt::EventTracer {
  public:
    struct Times {
        std::string name;
        int64_t nanoseconds = 0, calls = 0;
    };
    std::vector<Times> instructions;

    rt::EventTracerEntry start_profiling(const char *name, rt::ChainID chain, rt::DebugHandle handle) override {
        rt::EventTracerEntry entry{};
        entry.event_id = -1;
        if (chain == rt::kUnsetChainId) handle = debug_handle_;
        if (handle >= MAX_INSTRUCTIONS || std::strncmp(name, KERNEL, sizeof KERNEL - 1) != 0) {
            if (std::strcmp(name, "DELEGATE_CALL") != 0 || handle >= MAX_INSTRUCTIONS) return entry;
        } else {
            name += sizeof KERNEL - 1;
        }
        if (instructions.size() <= handle) instructions.resize(handle + 1);
        if (instructions[handle].name.empty()) instructions[handle].name = name;
        entry.event_id = handle;
        entry.start_time = static_cast<et_timestamp_t>(now());
        return entry;
    }
    void end_profiling(rt::EventTracerEntry entry) override {
        if (entry.event_id < 0) return;
        Times &times = instructions[static_cast<size_t>(entry.event_id)];
        times.nanoseconds += now() - static_cast<int64_t>(entry.start_time);
        times.calls++;
    }

    void create_event_block(const char *) override {}
    rt::EventTracerEntry start_profiling_delegate(const char *, rt::DelegateDebugIntId) override { return {}; }
    void end_profiling_delegate(rt::EventTracerEntry, const void *, size_t) override {}
    void log_profiling_delegate(const char *, rt::DelegateDebugIntId, et_timestamp_t, et_timestamp_t, const void *,
                                size_t) override {}
    void track_allocation(rt::AllocatorID, size_t) override {}
    rt::AllocatorID track_allocator(const char *) override { return 0; }
    rt::Result<bool> log_evalue(const rt::EValue &, rt::LoggedEValueType) override { return false; }
    rt::Result<bool> log_intermediate_output_delegate(const char *, rt::DelegateDebugIntId,
                                                      const aten::Tensor &) override {
        return false;
    }
    rt::Result<bool> log_intermediate_output_delegate(const char *, rt::DelegateDebugIntId,
                                                      const rt::ArrayRef<aten::Tensor>) override {
        return false;
    }
    rt::Result<bool> log_intermediate_output_delegate(const char *, rt::DelegateDebugIntId, const int &) override {
        return false;
    }
    rt::Result<bool> log_intermediate_output_delegate(const char *, rt::DelegateDebugIntId, const bool &) override {
        return false;
    }
    rt::Result<bool> log_intermediate_output_delegate(const char *, rt::DelegateDebugIntId, const double &) override {
        return false;
    }
    void set_delegation_intermediate_output_filter(rt::EventTracerFilterBase *) override {}

  private:
    static constexpr char KERNEL[] = "native_call_";
    static constexpr rt::DebugHandle MAX_INSTRUCTIONS = 1 << 20;

    static int64_t now() {
        timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
    }
};

struct Handle {
    std::vector<std::max_align_t> bytes;
    std::unique_ptr<BufferDataLoader> loader;
    std::unique_ptr<rt::Program> program;
    MallocMemoryAllocator method_memory, temporary_memory;
    std::vector<std::unique_ptr<uint8_t, decltype(&std::free)>> buffers;
    std::vector<rt::Span<uint8_t>> spans;
    std::unique_ptr<rt::HierarchicalAllocator> planned;
    std::unique_ptr<rt::MemoryManager> manager;
    std::unique_ptr<Clock> clock;  // or none
    std::unique_ptr<rt::Method> method;
    std::vector<Input> inputs;
};

int fail(rt::Error error, const char *what) {
    if (message.empty()) message = what;
    return static_cast<int>(error);
}

int make_inputs(Handle &handle, const rt::MethodMeta &meta) {
    handle.inputs.resize(meta.num_inputs());
    for (size_t i = 0; i < handle.inputs.size(); i++) {
        auto info = meta.input_tensor_meta(i);
        if (!info.ok()) return fail(info.error(), "an input is no tensor");
        Input &input = handle.inputs[i];
        const size_t dimensions = info->sizes().size();
        if (dimensions > MAX_DIMENSIONS) return fail(rt::Error::InvalidProgram, "an input has too many dimensions");
        input.sizes.assign(info->sizes().begin(), info->sizes().end());
        input.order.resize(dimensions);
        input.strides.resize(dimensions);
        aten::StridesType stride = 1;
        for (size_t d = dimensions; d-- > 0;) {
            input.order[d] = static_cast<aten::DimOrderType>(d);
            input.strides[d] = stride;
            stride *= input.sizes[d];
        }
        input.tensor = std::make_unique<aten::TensorImpl>(info->scalar_type(), dimensions, input.sizes.data(), nullptr,
                                                          input.order.data(), input.strides.data());
    }
    return 0;
}

int load(Handle &handle, const void *data, size_t size, const char *name) {
    handle.bytes.resize(size / sizeof(std::max_align_t) + 1);
    std::memcpy(handle.bytes.data(), data, size);
    handle.loader = std::make_unique<BufferDataLoader>(handle.bytes.data(), size);
    auto program = rt::Program::load(handle.loader.get(), rt::Program::Verification::InternalConsistency);
    if (!program.ok()) return fail(program.error(), "no program");
    handle.program = std::make_unique<rt::Program>(std::move(*program));
    auto meta = handle.program->method_meta(name);
    if (!meta.ok()) return fail(meta.error(), "no method of that name");
    for (size_t i = 0; i < meta->num_memory_planned_buffers(); i++) {
        auto bytes = meta->memory_planned_buffer_size(i);
        if (!bytes.ok() || *bytes < 0) return fail(rt::Error::InvalidProgram, "a planned buffer has no size");
        const size_t rounded = (static_cast<size_t>(*bytes) + 63) / 64 * 64;
        auto *memory = static_cast<uint8_t *>(std::aligned_alloc(64, rounded ? rounded : 64));
        if (memory == nullptr) return fail(rt::Error::MemoryAllocationFailed, "not enough memory");
        handle.buffers.emplace_back(memory, &std::free);
        handle.spans.emplace_back(memory, static_cast<size_t>(*bytes));
    }
    handle.planned = std::make_unique<rt::HierarchicalAllocator>(
        rt::Span<rt::Span<uint8_t>>(handle.spans.data(), handle.spans.size()));
    handle.manager =
        std::make_unique<rt::MemoryManager>(&handle.method_memory, handle.planned.get(), &handle.temporary_memory);
    auto method = handle.program->load_method(name, handle.manager.get(), handle.clock.get());
    if (!method.ok()) return fail(method.error(), "the method does not load");
    handle.method = std::make_unique<rt::Method>(std::move(*method));
    return make_inputs(handle, *meta);
}

int execute(Handle &handle, const void *const *inputs, void *const *outputs) {
    for (size_t i = 0; i < handle.inputs.size(); i++) {
        handle.inputs[i].tensor->set_data(const_cast<void *>(inputs[i]));
        const auto error = handle.method->set_input(rt::EValue(aten::Tensor(handle.inputs[i].tensor.get())), i);
        if (error != rt::Error::Ok) return fail(error, "an input does not fit");
    }
    const auto error = handle.method->execute();
    if (error != rt::Error::Ok) return fail(error, "the method fails");
    for (size_t i = 0; i < handle.method->outputs_size(); i++) {
        const auto &value = handle.method->get_output(i);
        if (!value.isTensor()) return fail(rt::Error::InvalidProgram, "an output is no tensor");
        std::memcpy(outputs[i], value.toTensor().const_data_ptr(), value.toTensor().nbytes());
    }
    return 0;
}

/* Run work; what the runtime throws or asserts becomes an error number. */
template <typename Work>
int guarded(Work work) {
    message.clear();
    try {
        return work();
    } catch (const std::bad_alloc &) {
        message = "not enough memory";
    } catch (const std::exception &error) {
        message = error.what();
    }
    return ABORTED;
}

}  // namespace

extern "C" {

/* Number of this interface; the binding refuses another. */
int64_t hs_et_interface() { return 2; }

/* The version of ExecuTorch whose headers this was compiled with. */
const char *hs_et_version() { return HS_EXECUTORCH_VERSION; }

/* What the last failing call of this thread met; valid until its next call. */
const char *hs_et_message() { return message.c_str(); }

/* Copy a program and prepare one of its methods; `timed`: hs_et_instruction shall know its instructions' times. */
int hs_et_load(const void *data, size_t size, const char *name, int timed, Handle **out) {
    return guarded([&] {
        prepare();
        auto handle = std::make_unique<Handle>();
        if (timed) handle->clock = std::make_unique<Clock>();
        const int error = load(*handle, data, size, name);
        if (!error) *out = handle.release();
        return error;
    });
}

void hs_et_free(Handle *handle) { delete handle; }

/* Bytes of memory for all activations, planned when the program was made. */
int64_t hs_et_planned_bytes(const Handle *handle) {
    int64_t bytes = 0;
    for (const auto &span : handle->spans) bytes += static_cast<int64_t>(span.size());
    return bytes;
}

/* Address and bytes of a planned buffer, 0 if there is none of that number. */
int64_t hs_et_planned_buffer(const Handle *handle, size_t index, void **address) {
    if (index >= handle->spans.size()) return 0;
    *address = handle->spans[index].data();
    return static_cast<int64_t>(handle->spans[index].size());
}

/* An instruction's kernel, and its time and calls so far: NULL after the last, "" for what calls no kernel. */
const char *hs_et_instruction(const Handle *handle, size_t index, int64_t *nanoseconds, int64_t *calls) {
    if (handle->clock == nullptr || index >= handle->clock->instructions.size()) return nullptr;
    const auto &times = handle->clock->instructions[index];
    *nanoseconds = times.nanoseconds;
    *calls = times.calls;
    return times.name.c_str();
}

/* Number of dimensions of an input (output = 0) or output (1), -1 if there is none; type as in ScalarType. */
int hs_et_tensor(const Handle *handle, int output, size_t index, int32_t *sizes, int32_t *type) {
    int dimensions = -1;
    guarded([&] {
        const auto meta = handle->method->method_meta();
        if (index >= (output ? meta.num_outputs() : meta.num_inputs())) return 0;
        const auto info = output ? meta.output_tensor_meta(index) : meta.input_tensor_meta(index);
        if (!info.ok() || info->sizes().size() > MAX_DIMENSIONS) return 0;
        std::memcpy(sizes, info->sizes().data(), info->sizes().size() * sizeof(int32_t));
        *type = static_cast<int32_t>(info->scalar_type());
        dimensions = static_cast<int>(info->sizes().size());
        return 0;
    });
    return dimensions;
}

/* Run the method on inputs in its order and copy its outputs out; the caller has checked every size. */
int hs_et_execute(Handle *handle, const void *const *inputs, void *const *outputs) {
    return guarded([&] { return execute(*handle, inputs, outputs); });
}

/* Threads that the whole process's kernels share. */
void hs_et_threads(uint32_t threads) {
    prepare();
    if (auto *pool = executorch::extension::threadpool::get_threadpool()) pool->_unsafe_reset_threadpool(threads);
}
}
