// qlora train and qlora resume.
#pragma once

namespace CLI {
class App;
}

void add_train_command(CLI::App& app);
void add_resume_command(CLI::App& app);
