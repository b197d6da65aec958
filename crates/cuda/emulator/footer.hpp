static void NAME_arguments(void** arguments) { emulator::call(NAME, arguments); }

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

// The kernel's name.
extern "C" const char* kernel_name() { return TEXT(NAME); }

// Bytes of each parameter; their number.
extern "C" size_t parameters(size_t* sizes) { return emulator::parameter_sizes(NAME, sizes); }
