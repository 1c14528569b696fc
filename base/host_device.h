// Marks a function that CUDA kernels call too. Empty where no CUDA compiler reads it.
#pragma once

#ifdef __CUDACC__
#define QLORA_HOST_DEVICE __host__ __device__
#else
#define QLORA_HOST_DEVICE
#endif
