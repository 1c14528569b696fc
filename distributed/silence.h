// c10d prints warnings with the frames of its stack where a store does not answer, also to who
// expects that. While this lives it does not.
#pragma once

#include <c10/util/Logging.h>

namespace qlora::distributed {

class Silence {
 public:
  Silence() { FLAGS_caffe2_log_level = c10::GLOG_FATAL; }
  ~Silence() { FLAGS_caffe2_log_level = before_; }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  int before_ = FLAGS_caffe2_log_level;
};

}  // namespace qlora::distributed
